package models

import "context"

type requestKey struct{}

// requestContext is a context that remembers a request.
type requestContext struct {
	context.Context //nolint:containedctx // it is one
	id              string
}

func (r *requestContext) Value(key any) any {
	if key == (requestKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// WithRequestID makes what is written under the returned context remember the request that it
// belongs to.
func WithRequestID(ctx context.Context, id string) context.Context {
	return &requestContext{ctx, id}
}

// RequestID is the request that ctx belongs to, "" if it is none's.
func RequestID(ctx context.Context) string {
	if r, ok := ctx.Value(requestKey{}).(*requestContext); ok {
		return r.id
	}
	return ""
}
