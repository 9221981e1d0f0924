package middleware

import "reflect"

// mustHave panics where an argument is nil that a middleware cannot do without, also
// a nil pointer inside an interface: that is a mistake in the program, and no
// request should be the first to find it.
func mustHave(middleware, name string, value any) {
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Invalid:
	case reflect.Pointer, reflect.Func, reflect.Interface:
		if !v.IsNil() {
			return
		}
	default:
		return
	}
	panic("middleware." + middleware + ": no " + name)
}
