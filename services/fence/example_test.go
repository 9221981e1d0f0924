package fence_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"gatehouse/models"
	"gatehouse/services/fence"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
)

// A holder that was too late: its lock ended while it slept, the next one wrote,
// and then it wakes up and writes.
func ExampleGuard() {
	locks, db, done := exampleFence()
	defer done()
	ctx := context.Background()

	var guard fence.Guard
	if _, err := db.ExecContext(ctx, guard.Schema()); err != nil { // in your migrations
		panic(err)
	}
	write := func(held lock.Lock, text string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := guard.Admit(ctx, tx, held.Resource, held.Fence); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE reports SET text = $1`, text); err != nil {
			return err
		}
		return tx.Commit()
	}

	sleeper, _ := locks.TryAcquire(ctx, lock.Request{Resource: "report:2026", Holder: models.Holder{UserID: "sleeper"}})
	fmt.Println("the first:", write(sleeper, "a draft"))
	_, _ = locks.ForceRelease(ctx, "report:2026", nil) // or its lease ended, or Redis lost it
	next, _ := locks.TryAcquire(ctx, lock.Request{Resource: "report:2026", Holder: models.Holder{UserID: "next"}})
	fmt.Println("the next:", write(next, "the report"))
	err := write(sleeper, "another draft")
	fmt.Println("too late:", errors.Is(err, models.ErrNotHeld))

	var text string
	_ = db.QueryRowContext(ctx, `SELECT text FROM reports`).Scan(&text)
	fmt.Println("it says:", text)
	// Output:
	// the first: <nil>
	// the next: <nil>
	// too late: true
	// it says: the report
}

// exampleFence is a Redis inside the process, and a database with one report.
func exampleFence() (*lock.Locker, *sql.DB, func()) {
	server := must(embedded.Start())
	rdb := redis.New(redis.Options{Client: server.ClientOption(), Embedded: true, Timeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	rdb.WaitReady(context.Background())
	folder := must(os.MkdirTemp("", "reports"))
	db := must(sql.Open("sqlite", "file:"+filepath.Join(folder, "reports.db")+"?_txlock=immediate"))
	must(db.ExecContext(context.Background(), `CREATE TABLE reports (text TEXT); INSERT INTO reports VALUES ('')`))
	return lock.New(rdb, lock.Options{}), db, func() {
		_ = rdb.Close(context.Background())
		server.Close()
		_ = db.Close()
		_ = os.RemoveAll(folder)
	}
}
