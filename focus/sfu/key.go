package sfu

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// apiKey is the LiveKit API key that Passerelle and its child share.
type apiKey struct {
	id, secret string
}

const (
	// keyFile holds the key as "id: secret". Losing it ends no more than the
	// tokens of the hour.
	keyFile = "livekit.key"
	// maxKeyFile bounds what is read of it.
	maxKeyFile = 4096
)

// loadKey reads the key of the folder, or makes one there.
func loadKey(dir string) (apiKey, error) {
	path := filepath.Join(dir, keyFile)
	k, err := readKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return k, err
	}
	// Of two that start at once, one makes the key. The other would not come
	// further than this lock anyway.
	lock, err := lockFolder(dir)
	if err != nil {
		return k, err
	}
	defer lock.unlock()
	if k, err = readKey(path); errors.Is(err, os.ErrNotExist) {
		return makeKey(dir, path)
	}
	return k, err
}

func readKey(path string) (k apiKey, err error) {
	file, err := os.Open(path)
	if err != nil {
		return k, fmt.Errorf("read the SFU's key: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return k, fmt.Errorf("read the SFU's key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return k, fmt.Errorf("read the SFU's key: others can read %s (chmod 600, or remove it; another key is made then)", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return k, fmt.Errorf("read the SFU's key: %w", err)
	}
	id, secret, ok := strings.Cut(strings.TrimSpace(string(data)), ": ")
	if !ok || id == "" || len(secret) < 32 || strings.ContainsAny(id+secret, " \t\r\n") {
		return k, fmt.Errorf("read the SFU's key: %s is damaged (remove it; another key is made then)", path)
	}
	return apiKey{id, secret}, nil
}

// makeKey writes the file under another name first: a file that is there is
// whole.
func makeKey(dir, path string) (apiKey, error) {
	k := apiKey{id: "passerelle-" + randomHex(4), secret: randomHex(32)}
	temporary, err := os.CreateTemp(dir, keyFile+".*") // mode 0600
	if err != nil {
		return k, fmt.Errorf("make the SFU's key: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = fmt.Fprintf(temporary, "%s: %s\n", k.id, k.secret)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return k, fmt.Errorf("make the SFU's key: %w", err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return k, fmt.Errorf("make the SFU's key: %w", err)
	}
	return k, nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
