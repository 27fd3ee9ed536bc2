package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// readSecretFiles fills in the secrets that stand in files of their own.
func (c *Config) readSecretFiles(mistakes *Mistakes) {
	for _, s := range []struct {
		key    string
		secret *Secret
		file   string
	}{
		{"database.uri", &c.Database.URI, c.Database.URIFile},
		{"livekit.secret", &c.LiveKit.Secret, c.LiveKit.SecretFile},
		{"homeserver.as_token", &c.Homeserver.ASToken, c.Homeserver.ASTokenFile},
		{"homeserver.hs_token", &c.Homeserver.HSToken, c.Homeserver.HSTokenFile},
	} {
		switch {
		case s.file == "":
		case *s.secret != "":
			mistakes.add(s.key, "stands here and in "+s.key+"_file", "keep one of them")
		default:
			*s.secret = readSecretFile(s.key+"_file", s.file, mistakes)
		}
	}
}

// NewSecretFile makes a secret of 256 bits in a file that nobody but its owner
// can use, unless the file is there, and returns what it holds. The file's folder
// is made, too. Errors name the key and never the secret.
func NewSecretFile(key, path string) (secret Secret, made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", false, fmt.Errorf("%s: %s (make the folder, or name a file in another one)", key, plainFileError(err))
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		var mistakes Mistakes
		secret = readSecretFile(key, path, &mistakes)
		return secret, false, mistakes.err()
	}
	if err != nil {
		return "", false, fmt.Errorf("%s: %s (run this as somebody who may write there, or name another file)", key, plainFileError(err))
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	secret = Secret(hex.EncodeToString(random[:]))
	_, err = file.WriteString(secret.Reveal() + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", false, fmt.Errorf("%s: %s", key, plainFileError(errors.Join(err, os.Remove(path))))
	}
	return secret, true, nil
}

// readSecretFile returns the one line that the file holds, or notes why it
// must not be used.
func readSecretFile(key, path string, mistakes *Mistakes) Secret {
	const instead = "name a file that holds the secret and nothing else"
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("is a folder")}
	}
	if err != nil {
		mistakes.add(key, plainFileError(err), instead)
		return ""
	}
	if info.Mode().Perm()&0o007 != 0 {
		mistakes.add(key, "every user of this machine can use "+path, fmt.Sprintf("run: chmod o= %s", shellQuoted(path)))
		return ""
	}
	data, err := readBounded(path)
	secret := strings.TrimRight(string(data), "\r\n")
	switch {
	case err != nil:
		mistakes.add(key, plainFileError(err), instead)
	case secret == "":
		mistakes.add(key, path+" is empty", instead)
	case strings.ContainsAny(secret, "\r\n\x00"):
		mistakes.add(key, path+" holds more than one line", instead)
	default:
		return Secret(secret)
	}
	return ""
}

// shellQuoted is the path as it is typed into a shell.
func shellQuoted(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-", r)
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
