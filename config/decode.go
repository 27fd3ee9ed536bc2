package config

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// decode puts the values into their fields, one by one, so that each mistake
// is reported with its own key. A key without a value keeps its default.
func decode(c *Config, values *viper.Viper, mistakes *Mistakes) {
	fields := reflect.ValueOf(c).Elem()
	for _, l := range leaves() {
		value := values.Get(viperKey(l.path))
		if value == nil {
			continue
		}
		if rules, ok := value.([]map[string]any); ok {
			c.Federation.Rules = decodeRules(l.path, rules, mistakes)
			continue
		}
		decodeOne(fields.FieldByIndex(l.index), l.path, value, mistakes)
	}
}

func decodeRules(path string, items []map[string]any, mistakes *Mistakes) []FederationRule {
	rules := make([]FederationRule, len(items))
	for i, item := range items {
		fields := reflect.ValueOf(&rules[i]).Elem()
		for at := range fields.NumField() {
			name := fields.Type().Field(at).Tag.Get("mapstructure")
			if value := item[name]; value != nil {
				decodeOne(fields.Field(at), rulePath(path, i)+"."+name, value, mistakes)
			}
		}
	}
	return rules
}

func rulePath(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// decodeOne sets one field. A value that does not fit leaves it as it is.
func decodeOne(field reflect.Value, path string, value any, mistakes *Mistakes) {
	into := reflect.New(field.Type())
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:           into.Interface(),
		WeaklyTypedInput: true,
		DecodeHook:       mapstructure.DecodeHookFuncType(strictTypes),
	})
	if err == nil {
		err = decoder.Decode(value)
	}
	if err != nil {
		// The error itself would repeat the value, which may be a secret.
		mistakes.add(path, "the value does not fit", expected(field.Type()))
		return
	}
	field.Set(into.Elem())
}

// strictTypes reads durations, and refuses what mapstructure would bend: a
// number as a duration (of nanoseconds), a number as a text, a text as a list,
// no text as the number 0. Texts that hold a number or a truth value are how
// the environment writes them.
func strictTypes(from, to reflect.Type, value any) (any, error) {
	errKind := fmt.Errorf("%s for %s", from, to)
	text, isText := value.(string)
	switch {
	case to == reflect.TypeFor[time.Duration]():
		if !isText {
			return nil, errKind
		}
		return time.ParseDuration(text)
	case to.Kind() == reflect.Int && isText:
		return strconv.Atoi(text)
	case to.Kind() == reflect.Slice && from.Kind() != reflect.Slice,
		to.Kind() == reflect.String && !isText,
		to.Kind() == reflect.Int && from.Kind() != reflect.Int,
		to.Kind() == reflect.Bool && from.Kind() != reflect.Bool && text != "true" && text != "false":
		return nil, errKind
	}
	return value, nil
}
