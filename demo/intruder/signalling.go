package intruder

import (
	"context"
	"fmt"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// maxMessage bounds a message of the SFU, in bytes.
const maxMessage = 1 << 20

// Signalling is a participant that speaks the signalling protocol and no media,
// and keeps the token that LiveKit makes for it.
type Signalling struct {
	// Refreshed is the token that LiveKit made.
	Refreshed string
	// Ended delivers once when the connection was ended.
	Ended <-chan time.Time

	conn *websocket.Conn
}

// Connect enters at base, an http:// address, with the token, and returns once
// the SFU has let it in and made it a token. Close ends it.
func Connect(ctx context.Context, base, token string) (*Signalling, error) {
	conn, _, err := websocket.Dial(ctx, base+"/rtc?protocol=15&auto_subscribe=1&access_token="+token, nil)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn.SetReadLimit(maxMessage)
	ended := make(chan time.Time, 1)
	s := &Signalling{Ended: ended, conn: conn}
	for joined := false; !joined || s.Refreshed == ""; {
		_, message, err := conn.Read(ctx)
		var response livekit.SignalResponse
		if err == nil {
			err = proto.Unmarshal(message, &response)
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("join: %w", err)
		}
		joined = joined || response.GetJoin() != nil
		if token := response.GetRefreshToken(); token != "" {
			s.Refreshed = token
		}
	}
	go func() {
		for {
			if _, _, err := conn.Read(context.Background()); err != nil {
				ended <- time.Now()
				return
			}
		}
	}()
	return s, nil
}

// Close ends the connection without a goodbye.
func (s *Signalling) Close() { _ = s.conn.CloseNow() }
