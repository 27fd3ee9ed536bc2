package config

import (
	"encoding/json"
	"net/url"
)

// rtcFoci is the key of the document that Passerelle writes itself.
const rtcFoci = "org.matrix.msc4143.rtc_foci"

// validate holds the document against what clients need of it: who finds none of
// these is told that there is no homeserver here.
func (a Announce) validate(m *Mistakes) {
	const (
		key     = "announce.well_known_file"
		example = `write {"m.homeserver": {"base_url": "https://matrix.example.gouv.fr"}}, and what else stands there today`
	)
	if a.WellKnownFile == "" {
		return
	}
	data, err := readBounded(a.WellKnownFile)
	if err != nil {
		m.add(key, plainFileError(err), "name a JSON file that Passerelle may read")
		return
	}
	var document map[string]json.RawMessage
	if json.Unmarshal(data, &document) != nil || document == nil {
		m.add(key, "holds no JSON object", example)
		return
	}
	var home struct {
		BaseURL string `json:"base_url"`
	}
	u, err := new(url.URL), json.Unmarshal(document["m.homeserver"], &home)
	if err == nil {
		u, err = url.Parse(home.BaseURL)
	}
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		m.add(key, "does not say where clients reach the homeserver", example)
	case document[rtcFoci] != nil:
		m.add(key, "has "+rtcFoci+" already", "remove it from the file: Passerelle adds its own address")
	}
}
