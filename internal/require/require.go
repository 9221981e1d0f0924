// Package require lets constructors refuse what they cannot do without, so that no request is
// the first to find it missing.
package require

import (
	"fmt"
	"reflect"
)

// Argument is one that a constructor cannot do without.
type Argument struct {
	Name  string
	Value any
}

// All names the first argument that is nil, also a nil pointer inside an interface: what
// another constructor returned with an error that was not looked at. The constructor is named
// with its package.
func All(constructor string, arguments ...Argument) error {
	for _, a := range arguments {
		switch v := reflect.ValueOf(a.Value); v.Kind() {
		case reflect.Invalid:
		case reflect.Pointer, reflect.Func:
			if !v.IsNil() {
				continue
			}
		default:
			continue
		}
		return fmt.Errorf("%s: no %s", constructor, a.Name)
	}
	return nil
}

// Must is All for a constructor that returns no error, because only a mistake in the program
// makes it fail: it panics.
func Must(constructor string, arguments ...Argument) {
	if err := All(constructor, arguments...); err != nil {
		panic(err.Error())
	}
}
