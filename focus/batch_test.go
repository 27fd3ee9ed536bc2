package focus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBatchJoinsWhatComesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes [][]int
		release := make(chan struct{})
		b := newBatch(func(_ context.Context, rows []int) error {
			writes = append(writes, rows)
			<-release
			return nil
		})
		var putting sync.WaitGroup
		putting.Go(func() { require.NoError(t, b.put(t.Context(), 0)) })
		synctest.Wait() // the first writes, and blocks
		for i := range 100 {
			putting.Go(func() { require.NoError(t, b.put(t.Context(), i+1)) })
		}
		synctest.Wait()
		close(release)
		putting.Wait()
		require.Len(t, writes, 3, "the first, a full batch, the rest")
		require.Len(t, writes[1], maxBatch)
		all := slices.Concat(writes...)
		slices.Sort(all)
		for i := range 101 {
			require.Equal(t, i, all[i], "each row once")
		}
	})
}

func TestARowThatCannotBeStoredTakesNoneAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad row")
		release := make(chan struct{})
		stored := map[int]bool{}
		b := newBatch(func(_ context.Context, rows []int) error {
			<-release
			if slices.Contains(rows, 7) {
				return bad
			}
			for _, row := range rows {
				stored[row] = true
			}
			return nil
		})
		var putting sync.WaitGroup
		for i := range 10 {
			putting.Go(func() {
				err := b.put(t.Context(), i)
				require.Equal(t, i == 7, errors.Is(err, bad), "%d: %v", i, err)
			})
		}
		synctest.Wait()
		close(release)
		putting.Wait()
		require.Len(t, stored, 9)
	})
}

// Nor is the row written that nobody waits for any more: it may be an old one by
// then.
func TestACallerThatGivesUpHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var written []int
		b := newBatch(func(_ context.Context, rows []int) error {
			<-release
			written = append(written, rows...)
			return nil
		})
		var putting sync.WaitGroup
		putting.Go(func() { require.NoError(t, b.put(t.Context(), 1)) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- b.put(ctx, 2) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gaveUp, context.Canceled)
		putting.Go(func() { require.NoError(t, b.put(t.Context(), 3)) })
		synctest.Wait()
		close(release)
		putting.Wait()
		require.Equal(t, []int{1, 3}, written)
	})
}

// A database that stalled while more asked than fit into the queue, and all of
// them gave up: the next one is served all the same.
func TestAQueueOfThoseWhoGaveUpIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := newBatch(func(context.Context, []int) error { <-release; return nil })
		ctx, giveUp := context.WithCancel(t.Context())
		var putting sync.WaitGroup
		for i := range 6 * maxBatch {
			putting.Go(func() { _ = b.put(ctx, i) })
		}
		synctest.Wait()
		giveUp()
		close(release)
		putting.Wait()
		for len(b.waiting) < cap(b.waiting) { // how many are left is chance
			b.waiting <- &queued[int]{ctx: ctx, done: make(chan error, 1)}
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, b.put(soon, -1))
	})
}
