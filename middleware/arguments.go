package middleware

import "gatehouse/internal/require"

// mustHave panics where an argument is nil that a middleware cannot do without.
func mustHave(middleware, name string, value any) {
	require.Must("middleware."+middleware, require.Argument{Name: name, Value: value})
}
