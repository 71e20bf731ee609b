package main

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is one setting of a Config.
type field struct {
	Key   string // as in the file: ssh.listen
	Value reflect.Value
	Help  string
	Path  bool // it names files, which are relative to the configuration file

	Records bool // it has neither flag nor variable, see records.go
}

var nameOfKey = strings.NewReplacer(".", "-", "_", "-")

// Flag is its name on the command line, without hyphens before it.
func (f field) Flag() string { return nameOfKey.Replace(f.Key) }

// Env is its name in the environment.
func (f field) Env() string {
	return "STAGEDOOR_" + strings.ToUpper(strings.ReplaceAll(f.Flag(), "-", "_"))
}

// fields returns all settings of c, in the order of the file. What is set in
// their Values is set in c.
func fields(c *Config) []field { return structFields(reflect.ValueOf(c).Elem(), "") }

func structFields(v reflect.Value, prefix string) []field {
	var all []field
	for i := range v.NumField() {
		t := v.Type().Field(i)
		key := prefix + t.Tag.Get("yaml")
		if t.Type.Kind() == reflect.Struct {
			all = append(all, structFields(v.Field(i), key+".")...)
			continue
		}
		all = append(all, field{Key: key, Value: v.Field(i), Help: t.Tag.Get("help"), Path: t.Tag.Get("kind") == "path", Records: isRecords(t.Type)})
	}
	return all
}

// kindName is what the help calls the type of a setting.
func kindName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[[]string]():
		return "list"
	case reflect.TypeFor[int]():
		return "number"
	case reflect.TypeFor[bool]():
		return "bool"
	}
	return "text"
}

// show writes the value of a setting as one would in the file.
func show(v any) string {
	switch v := v.(type) {
	case []string:
		return strings.Join(v, ",")
	case time.Duration:
		s := v.String() // 24h0m0s
		if v%time.Minute == 0 && v != 0 {
			s = strings.TrimSuffix(s, "0s")
		}
		if v%time.Hour == 0 && v != 0 {
			s = strings.TrimSuffix(s, "0m")
		}
		return s
	}
	return fmt.Sprint(v)
}

// parse reads the text of a setting into its type. Text from outside the file
// writes lists with commas.
func parse(t reflect.Type, raw any) (reflect.Value, error) {
	if isRecords(t) {
		return parseRecords(t, raw)
	}
	if list, ok := raw.([]string); ok {
		return parseList(t, list)
	}
	s, ok := raw.(string)
	if !ok {
		return reflect.Value{}, fmt.Errorf("expected text, got %T", raw)
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		return valueOf(parseDuration(s))
	case reflect.TypeFor[Size]():
		return valueOf(ParseSize(s))
	case reflect.TypeFor[int]():
		n, err := parseInt(s)
		return valueOf(int(n), err)
	case reflect.TypeFor[bool]():
		return valueOf(parseBool(s))
	case reflect.TypeFor[[]string]():
		return parseList(t, strings.Split(s, ","))
	}
	return reflect.ValueOf(s), nil
}

func valueOf[T any](v T, err error) (reflect.Value, error) { return reflect.ValueOf(v), err }

func parseList(t reflect.Type, list []string) (reflect.Value, error) {
	if t != reflect.TypeFor[[]string]() {
		return reflect.Value{}, fmt.Errorf("expected one value, got %d", len(list))
	}
	items := []string{} // not nil: an empty list is something else than none
	for _, item := range list {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return reflect.ValueOf(items), nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%q has no unit; write %ss, %sm or %sh", s, s, s, s)
	}
	return 0, fmt.Errorf("%q is not a duration; write for example 30s, 5m or 24h", s)
}

// parseBool takes the two words that YAML 1.2 has, and no others.
func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, fmt.Errorf("%q is neither true nor false", s)
	}
	return s == "true", nil
}

// parseInt reads a decimal number that fits an int of 32 bits and more.
func parseInt(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 0)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%q is too large", s)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return n, nil
}
