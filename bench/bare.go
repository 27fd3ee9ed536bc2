package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// bare is the least that answers a token request: no policy, no limits, no
// database, no door. It is the yardstick.
type bare struct {
	client    *http.Client
	sfu       string
	clientAPI string
}

func serveBare() error {
	var settings bareSettings
	if err := json.NewDecoder(os.Stdin).Decode(&settings); err != nil {
		return err
	}
	pem, err := os.ReadFile(settings.CAFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	server := &http.Server{Addr: settings.Listen, ReadHeaderTimeout: 10 * time.Second, Handler: &bare{
		sfu: settings.SFU, clientAPI: settings.ClientAPI,
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 32, MaxConnsPerHost: 32,
		}},
	}}
	return server.ListenAndServe()
}

// ServeHTTP implements [http.Handler].
func (b *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Room        string `json:"room"`
		RoomID      string `json:"room_id"`
		OpenIDToken struct {
			AccessToken      string `json:"access_token"`
			MatrixServerName string `json:"matrix_server_name"`
		} `json:"openid_token"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	user, err := r.Header.Get(userHeader), error(nil)
	if user == "" {
		user, err = b.user(request.OpenIDToken.MatrixServerName, request.OpenIDToken.AccessToken)
	} else {
		err = b.joined(request.RoomID, user)
	}
	if err != nil || b.createRoom() != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "APIbench", "sub": user, "exp": time.Now().Add(time.Hour).Unix(),
		"video": map[string]any{"roomJoin": true, "room": request.Room + request.RoomID},
	}).SignedString([]byte("6f1c0e8b54d24b7f9a31c2d07be89a45"))
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"url": "ws://bench", "jwt": token})
}

func (b *bare) user(server, token string) (string, error) {
	answer, err := b.client.Get("https://" + server + "/_matrix/federation/v1/openid/userinfo?access_token=" + url.QueryEscape(token))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var info struct {
		Subject string `json:"sub"`
	}
	err = json.NewDecoder(answer.Body).Decode(&info)
	return info.Subject, err
}

// joined asks whether a user for whom the homeserver vouches is in the room.
func (b *bare) joined(room, user string) error {
	answer, err := b.client.Get(b.clientAPI + isJoined(room, user))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var said struct {
		Joined bool `json:"joined"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil || !said.Joined {
		return errors.Join(err, errors.New("not in the room"))
	}
	return nil
}

func (b *bare) createRoom() error {
	answer, err := b.client.Post(b.sfu+"/twirp/livekit.RoomService/CreateRoom", "application/protobuf", bytes.NewReader([]byte{0x0a, 0x01, 'r'}))
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.Body.Close()
}
