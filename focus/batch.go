package focus

import (
	"context"
	"runtime"
	"time"
)

const (
	// maxBatch bounds how many rows one transaction writes.
	maxBatch = 64
	// writeTimeout bounds the writing of a batch, retries of its rows included.
	writeTimeout = 10 * time.Second
)

// batch joins rows that are written at the same time into one transaction, so
// that a hundred token requests at once cost a few commits and not a hundred.
// There is no goroutine and no delay: who comes first writes for all who came
// while the one before was writing.
type batch[Row any] struct {
	// write stores all rows or none.
	write func(ctx context.Context, rows []Row) error
	// turn holds a value while somebody writes.
	turn chan struct{}
	// waiting are the rows to be written next. It is bounded by the requests
	// that are served at once, each of which waits for its own.
	waiting chan *queued[Row]
}

type queued[Row any] struct {
	row Row
	// ctx is of who waits for the row.
	ctx  context.Context
	done chan error // gets one value
}

func newBatch[Row any](write func(context.Context, []Row) error) *batch[Row] {
	return &batch[Row]{write: write, turn: make(chan struct{}, 1), waiting: make(chan *queued[Row], 4*maxBatch)}
}

// put returns once the row is committed. A row whose caller has given up by the
// time of its turn is not written: that may be much later, and by then it may say
// what is not so any more.
func (b *batch[Row]) put(ctx context.Context, row Row) error {
	own := &queued[Row]{row: row, ctx: ctx, done: make(chan error, 1)}
	for queued := false; !queued; {
		select {
		case b.waiting <- own:
			queued = true
		case b.turn <- struct{}{}:
			// The queue may be full of rows whose owners have all given up: then
			// there is nobody else to write them.
			b.writeSome(context.WithoutCancel(ctx))
			<-b.turn
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		select {
		case err := <-own.done:
			return err
		case b.turn <- struct{}{}:
			// Those who are about to queue a row are let go first: under load a
			// few share a commit that would each have had their own. Where
			// nobody else is at work this returns at once.
			runtime.Gosched()
			// Others' rows are written too; their owners outlive this request.
			b.writeSome(context.WithoutCancel(ctx))
			<-b.turn
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writeSome writes what waits and is waited for, up to a batch. When that fails
// each row is tried by itself: one that cannot be stored must not take others
// along.
func (b *batch[Row]) writeSome(ctx context.Context) {
	var taken []*queued[Row]
	var rows []Row
	for len(taken) < maxBatch {
		select {
		case q := <-b.waiting:
			if err := q.ctx.Err(); err != nil {
				q.done <- err
			} else {
				taken, rows = append(taken, q), append(rows, q.row)
			}
			continue
		default:
		}
		break
	}
	if len(taken) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := b.write(ctx, rows)
	for _, q := range taken {
		if err != nil && len(taken) > 1 {
			q.done <- b.write(ctx, []Row{q.row})
			continue
		}
		q.done <- err
	}
}
