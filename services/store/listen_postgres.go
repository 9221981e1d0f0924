package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	revocationChannel = "gatehouse_revocations"
	listenRetry       = time.Second
	listenPing        = 15 * time.Second
)

// WatchRevocations calls changed soon after the revocation log has grown, until ctx ends. It
// is a hint that may be missed: read the log anyway. With SQLite, which cannot notify, it only
// waits for ctx.
func (s *Store) WatchRevocations(ctx context.Context, changed func()) {
	for s.listen != nil && ctx.Err() == nil {
		_ = s.listen(ctx, changed) // whatever ended it, we listen again; the log is read meanwhile
		select {
		case <-time.After(listenRetry):
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
}

// listenPostgres has a connection of its own, and notices one that hangs.
func listenPostgres(ctx context.Context, config *pgx.ConnConfig, timeout time.Duration, changed func()) error {
	within := func(d time.Duration, do func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return do(ctx)
	}
	var conn *pgx.Conn
	err := within(timeout, func(ctx context.Context) (err error) {
		conn, err = pgx.ConnectConfig(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	err = within(timeout, func(ctx context.Context) error {
		_, err := conn.Exec(ctx, `LISTEN `+revocationChannel)
		return err
	})
	if err != nil {
		return err
	}
	changed() // what was written before
	for ctx.Err() == nil {
		quiet := within(listenPing, func(ctx context.Context) error {
			_, err := conn.WaitForNotification(ctx)
			return err
		})
		switch {
		case quiet == nil:
			changed()
		case ctx.Err() != nil || conn.IsClosed():
			return quiet
		default: // nothing was written, or the server is gone
			if err := within(timeout, conn.Ping); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}
