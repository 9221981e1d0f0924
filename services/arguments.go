package services

import (
	"fmt"
	"reflect"
)

// argument is one that a constructor cannot do without.
type argument struct {
	name  string
	value any
}

// require names the first argument that is nil, also a nil pointer inside an
// interface: what another constructor returned with an error that was not looked at.
func require(constructor string, arguments ...argument) error {
	for _, a := range arguments {
		v := reflect.ValueOf(a.value)
		if !v.IsValid() || (v.Kind() == reflect.Pointer && v.IsNil()) {
			return fmt.Errorf("services.%s: no %s", constructor, a.name)
		}
	}
	return nil
}

// mustRequire is require for a constructor that returns no error, because only a
// mistake in the program makes it fail.
func mustRequire(constructor string, arguments ...argument) {
	if err := require(constructor, arguments...); err != nil {
		panic(err.Error())
	}
}
