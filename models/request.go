package models

import "context"

type requestKey struct{}

// WithRequestID makes what is written under the returned context remember the request that it
// belongs to.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID is the request that ctx belongs to, "" if it is none's.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}
