package livekit

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"passerelle/focus/matrixrtc"
)

// FuzzClaims signs any header and any claims with our own key, as a LiveKit of
// tomorrow might. What is admitted is in force, and says whom and where.
func FuzzClaims(f *testing.F) {
	const header = `{"alg":"HS256","typ":"JWT"}`
	f.Add(header, `{"iss":"APItest","sub":"who","exp":4102444800,"nbf":1,"video":{"roomJoin":true,"room":"r"}}`)
	f.Add(header, `{"iss":"APItest","sub":"who","exp":4102444800,"video":{"roomJoin":true,"room":"r","roomAdmin":true},"metadata":"x"}`)
	f.Add(header, `{"iss":"APItest","sub":"who","exp":1e99,"video":{"roomJoin":true,"room":"r"}}`)
	f.Add(header, `{"iss":"APItest","sub":"who","exp":-1,"nbf":"x","video":null}`)
	f.Add(header, `{"iss":["APItest"],"sub":"who","aud":[1],"exp":4102444800,"video":{"roomJoin":"true","room":"r"}}`)
	f.Add(header, strings.Repeat(`{"video":`, 1000))
	f.Add(`{"alg":"none"}`, `{"iss":"APItest","sub":"who","exp":4102444800,"video":{"roomJoin":true,"room":"r"}}`)
	f.Add(`{"alg":"HS256","kid":"../../dev/null","crit":["exp"],"b64":false}`, `{}`)
	tokens := NewVerifier(NewTokens(testKey, testSecret))
	f.Fuzz(func(t *testing.T, header, claims string) {
		encode := base64.RawURLEncoding.EncodeToString
		signed := encode([]byte(header)) + "." + encode([]byte(claims))
		signature, err := jwt.SigningMethodHS256.Sign(signed, []byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		got, err := tokens.Verify(signed + "." + encode(signature))
		if err != nil {
			if got != (matrixrtc.Ticket{}) {
				t.Fatalf("%+v beside an error", got)
			}
			return
		}
		now := time.Now()
		switch {
		case got.Room == "" || got.Identity == "":
			t.Fatalf("admits nobody, or nowhere: %+v", got)
		case got.Expires.Before(now.Add(-clockSkew-time.Second)) || got.MadeAt.After(now.Add(clockSkew+time.Second)):
			t.Fatalf("is not in force: %+v", got)
		case !json.Valid([]byte(claims)) || !json.Valid([]byte(header)):
			t.Fatalf("from what is not JSON: %q, %q", header, claims)
		}
		var h struct{ Alg string }
		if err := json.Unmarshal([]byte(header), &h); err != nil || h.Alg != "HS256" {
			t.Fatalf("by the algorithm %q", h.Alg)
		}
	})
}

// FuzzWebhookToken sends a good report under any Authorization header: only
// the one that was signed for it is believed.
func FuzzWebhookToken(f *testing.F) {
	good := signedWebhook(f, testKey, testSecret, leftBody).Header.Get("Authorization")
	f.Add(good)
	f.Add("Bearer " + good)
	f.Add("")
	f.Add("a.b.c")
	f.Add(strings.Repeat("A", 100_000))
	unsigned, _, _ := strings.Cut(good, ".")
	f.Add(unsigned + "..")
	f.Fuzz(func(t *testing.T, authorization string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sfu_webhook", strings.NewReader(leftBody))
		r.Header.Set("Content-Type", "application/webhook+json")
		r.Header["Authorization"] = []string{authorization}
		var got recorder
		w := httptest.NewRecorder()
		newTestWebhook(&got).ServeHTTP(w, r)
		// The signature's last character has spare bits.
		if w.Code != http.StatusUnauthorized && !strings.Contains(authorization, good[:len(good)-1]) {
			t.Fatalf("status %d with %q", w.Code, authorization)
		}
		if w.Code == http.StatusUnauthorized && len(got.events) > 0 {
			t.Fatal("refused and recorded")
		}
	})
}
