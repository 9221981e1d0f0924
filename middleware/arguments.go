package middleware

import "gatehouse/internal/require"

// mustHave panics if a required argument is nil, or an interface with a nil pointer in it.
// That is a mistake in the program: it shows at the start, not in the first request.
func mustHave(middleware, name string, value any) {
	require.Must("middleware."+middleware, require.Argument{Name: name, Value: value})
}
