package town_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/town"
)

const (
	// events are sent in as many rooms, one of which both ministries share.
	events    = 1000
	sentRooms = 10
	sentText  = "one of many"
)

// inbox is an application service that is pushed the events of some users'
// rooms, and counts those that are ours.
type inbox struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[id.EventID]bool
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	i := &inbox{seen: map[id.EventID]bool{}}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var pushed struct {
			Events []struct {
				ID      id.EventID `json:"event_id"`
				Content struct {
					Body string `json:"body"`
				} `json:"content"`
			} `json:"events"`
		}
		if err := json.NewDecoder(r.Body).Decode(&pushed); err == nil && strings.Contains(r.URL.Path, "/transactions/") {
			i.mu.Lock()
			defer i.mu.Unlock()
			for _, e := range pushed.Events {
				if e.Content.Body == sentText {
					i.seen[e.ID] = true
				}
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *inbox) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.seen)
}

// pushing is a registration by which a homeserver pushes the events of all
// rooms in which it has anybody.
func pushing(name, url, hsToken, server string) map[string]any {
	return map[string]any{
		"id": name, "url": url, "as_token": rand.Text(), "hs_token": hsToken, "sender_localpart": "_" + name, "rate_limited": false,
		"namespaces": map[string]any{"aliases": []any{}, "rooms": []any{}, "users": []any{
			map[string]any{"exclusive": false, "regex": "@.*:" + regexp.QuoteMeta(server)}}},
	}
}

// TestTheRegistrationSeesNothing: of a thousand events a homeserver pushes
// Passerelle none, while it pushes all of them to a service that is registered
// for them. That Passerelle would count them is seen at the other ministry,
// where it is registered once more, with its address as url.
func TestTheRegistrationSeesNothing(t *testing.T) {
	others := newInbox(t)
	w, _ := newTown(t, func(o *town.Options) {
		o.AppServices = func(m *town.Ministry) []map[string]any {
			if m.Session == "agnes" {
				return []map[string]any{pushing("others", others.URL, rand.Text(), m.ServerName())}
			}
			return []map[string]any{pushing("mistaken", m.ProxiedURL, m.HSToken, m.ServerName())}
		}
	})
	agnes := w.Interieur.User
	in := []id.RoomID{w.Room}
	for len(in) < sentRooms {
		room, err := agnes.CreateCallRoom(t.Context(), "Autre", false)
		require.NoError(t, err)
		in = append(in, room)
	}
	var sending errgroup.Group
	sending.SetLimit(8)
	for n := range events {
		sending.Go(func() error {
			_, err := agnes.SendMessageEvent(t.Context(), in[n%len(in)], event.EventMessage,
				event.MessageEventContent{MsgType: event.MsgText, Body: sentText})
			return err
		})
	}
	require.NoError(t, sending.Wait())
	require.Eventually(t, func() bool { return others.count() == events }, 2*time.Minute, 100*time.Millisecond, "the homeserver pushes what it is to")
	const pushed = `passerelle_proxied_refused_total{reason="pushed"}`
	require.Eventually(t, func() bool { return metric(t, w.Finances, pushed) > 0 }, time.Minute, 100*time.Millisecond, "what is pushed is counted")
	for _, reason := range []string{"pushed", "hs_token", "caller"} {
		require.Zero(t, metric(t, w.Interieur, `passerelle_proxied_refused_total{reason="`+reason+`"}`), reason)
	}
	t.Logf("%d events: %d pushed to another service, 0 to Passerelle; %.0f times to the one that is registered wrongly",
		events, others.count(), metric(t, w.Finances, pushed))
}
