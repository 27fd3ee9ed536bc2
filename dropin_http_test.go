package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var dropInRoutes = []string{"/sfu/get", "/get_token", "/delegate_delayed_leave"}

// requireCORS: what browsers of all clients need, on every answer.
func requireCORS(t *testing.T, answer reply) {
	t.Helper()
	require.Equal(t, "*", answer.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, answer.header.Get("Access-Control-Allow-Methods"), "POST")
	for _, name := range []string{"Accept", "Content-Type", "Content-Length", "Accept-Encoding", "X-CSRF-Token"} {
		require.Contains(t, answer.header.Get("Access-Control-Allow-Headers"), name)
	}
}

// TestDropInSurface is rows 1 to 14 of the conformance checks.
func TestDropInSurface(t *testing.T) {
	d := newDropIn(t).start()
	for _, route := range dropInRoutes {
		answer := d.send(http.MethodOptions, route, nil)
		require.Equal(t, http.StatusOK, answer.status)
		require.Empty(t, answer.raw)
		requireCORS(t, answer)
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			answer = d.send(method, route, nil)
			require.Equal(t, http.StatusMethodNotAllowed, answer.status)
			require.Empty(t, answer.raw)
			requireCORS(t, answer)
		}
		for _, body := range []string{"{", "[]", "", `{"room":1,"room_id":1}`} {
			answer = d.post(route, body)
			require.Equal(t, http.StatusBadRequest, answer.status, "%s %s", route, body)
			require.Equal(t, "M_NOT_JSON", answer.body["errcode"])
			require.Equal(t, "application/json", answer.header.Get("Content-Type"))
			requireCORS(t, answer)
		}
		answer = d.post(route, `{"x":"`+strings.Repeat("x", 1<<20+1)+`"}`)
		require.Contains(t, []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}, answer.status)
	}
	require.Equal(t, http.StatusNotFound, d.post("/nothing", object{}).status)
	require.Equal(t, http.StatusOK, d.post("//sfu/get", d.legacy("ana")).status, "Element Call appends to a trailing slash")
	require.Equal(t, http.StatusOK, d.post("/get_token", d.standalone("ana", object{"new_field": object{"x": 1}})).status)
	require.Equal(t, 2, d.home.Requests(), "nobody was asked for what is malformed")
}

// TestDropInMissingFields is rows 4 to 7: 400 M_BAD_JSON, and nobody is asked.
func TestDropInMissingFields(t *testing.T) {
	d := newDropIn(t).start()
	bad := func(route string, body object) {
		t.Helper()
		answer := d.post(route, body)
		require.Equal(t, http.StatusBadRequest, answer.status, answer.raw)
		require.Equal(t, "M_BAD_JSON", answer.body["errcode"])
		requireCORS(t, answer)
	}
	bad("/sfu/get", d.legacy("ana", object{"room": ""}))
	for _, half := range []object{{"access_token": "x"}, {"matrix_server_name": "x"}, {}} {
		bad("/sfu/get", d.legacy("ana", object{"openid_token": half}))
		bad("/get_token", d.standalone("ana", object{"openid_token": half}))
	}
	for _, route := range []string{"/get_token", "/delegate_delayed_leave"} {
		for _, name := range []string{"room_id", "slot_id", "member"} {
			body := d.standalone("ana", delay("leave", 1000000))
			delete(body, name)
			bad(route, body)
		}
		for _, name := range []string{"id", "claimed_user_id", "claimed_device_id"} {
			body := d.standalone("ana", delay("leave", 1000000))
			body["member"].(object)[name] = ""
			bad(route, body)
		}
	}
	for _, half := range []object{{"delay_id": "x"}, {"delay_timeout": 1000}, {"delay_id": "x", "delay_timeout": 0}, {"delay_id": "x", "delay_timeout": -1}} {
		bad("/sfu/get", d.legacy("ana", half))
		bad("/get_token", d.standalone("ana", half))
		bad("/delegate_delayed_leave", d.standalone("ana", half))
	}
	bad("/delegate_delayed_leave", d.standalone("ana"))
	require.Zero(t, d.home.Requests())
}

// TestDropInAlwaysDelegates: the route is never 404, by which clients would
// know a service that does not.
func TestDropInAlwaysDelegates(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_URL=ws://127.0.0.1:1").start()
	for _, body := range []any{"", "{}", object{}} {
		answer := d.post("/delegate_delayed_leave", body)
		require.Equal(t, http.StatusBadRequest, answer.status)
		requireCORS(t, answer)
	}
	d.delegate("ana", "leave", 500e6)
	d.called("leave", "send", 1, 10e9)
}
