package federation

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// documents answers requests for .well-known documents.
type documents struct {
	asked    int
	delegate string
}

func (d *documents) RoundTrip(r *http.Request) (*http.Response, error) {
	d.asked++
	body := io.NopCloser(strings.NewReader(`{"m.server":"` + d.delegate + `"}`))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: r}, nil
}

func find(t *testing.T, h *home, r *resolver) *place {
	t.Helper()
	p, err := h.find(t.Context(), r)
	require.NoError(t, err)
	return p
}

func TestAPlaceIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &documents{delegate: "one.test:8448"}
		r := &resolver{wellKnown: &http.Client{Transport: d}}
		h := newHome("hs.test")
		first := find(t, &h, r)
		require.Equal(t, []string{"one.test:8448"}, first.addresses)
		time.Sleep(delegatedFor - time.Nanosecond)
		require.Same(t, first, find(t, &h, r))
		require.Equal(t, 1, d.asked)

		time.Sleep(time.Nanosecond)
		require.Same(t, first, find(t, &h, r), "the same place keeps its connections")
		require.Equal(t, 2, d.asked)

		d.delegate = "two.test:8448"
		time.Sleep(delegatedFor)
		second := find(t, &h, r)
		require.Equal(t, "two.test:8448", second.host)
		require.Equal(t, "two.test", second.tlsName)
		require.NotEqual(t, first.pool, second.pool)
	})
}

func TestAPlaceThatGaveNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &documents{delegate: "one.test:8448"}
		r := &resolver{wellKnown: &http.Client{Transport: d}}
		h := newHome("hs.test")
		first := find(t, &h, r)
		for range 100 { // all who asked at the same time
			h.doubt(first, r)
		}
		second := find(t, &h, r)
		require.NotEqual(t, first.pool, second.pool, "what failed is not used again")
		require.Equal(t, first.host, second.host)
		h.doubt(second, r)
		find(t, &h, r)
		require.Equal(t, 1, d.asked, "it is not looked for at each failure")

		d.delegate = "two.test:8448"
		time.Sleep(doubtedFor)
		require.Equal(t, "two.test:8448", find(t, &h, r).host)
		require.Equal(t, 2, d.asked)
	})
}

func TestWhoGoesAwayIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &documents{delegate: "one.test:8448"}
		r := &resolver{wellKnown: &http.Client{Transport: d}}
		h := newHome("hs.test")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := h.find(gone, r)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, "one.test:8448", find(t, &h, r).host, "the next one looks")

		h = newHome("hs.test")
		h.looking <- struct{}{} // somebody who takes long
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = h.find(late, r)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestReasonsHoldNothingOfTheAnswer(t *testing.T) {
	for _, err := range []error{
		errors.New("malformed HTTP status code \"SECRET\""),
		errors.Join(errors.New("SECRET"), errAddress),
		errors.Join(errors.New("SECRET"), context.DeadlineExceeded),
		errors.Join(errors.New("SECRET"), context.Canceled),
	} {
		require.NotContains(t, reason(err).Error(), "SECRET")
	}
}
