package config

import (
	"reflect"
	"strings"
)

// hot are the keys, or sections, whose change a running Passerelle applies.
var hot = []string{"log.level", "focus.", "federation.rules"}

// Changed lists the keys in which two configurations differ: those that a
// reload applies, and those that need a restart.
func Changed(running, fresh *Config) (applied, needRestart []string) {
	a, b := reflect.ValueOf(running).Elem(), reflect.ValueOf(fresh).Elem()
	for _, l := range leaves() {
		if reflect.DeepEqual(a.FieldByIndex(l.index).Interface(), b.FieldByIndex(l.index).Interface()) {
			continue
		}
		if isHot(l.path) {
			applied = append(applied, l.path)
		} else {
			needRestart = append(needRestart, l.path)
		}
	}
	return applied, needRestart
}

func isHot(path string) bool {
	for _, h := range hot {
		if path == h || strings.HasSuffix(h, ".") && strings.HasPrefix(path, h) {
			return true
		}
	}
	return false
}
