package auth

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestGrantHold(t *testing.T) {
	minutes := func(n time.Duration) *time.Duration { n *= time.Minute; return &n }
	for text, want := range map[string]*GrantHold{
		`{"authorized_keys":[]}`:           nil,
		`{"authorized_keys":[],"hold":{}}`: {},
		`{"authorized_keys":[],"hold":{"grace":"5m0s","hard":"1h0m0s","wait":"0s"}}`: {Wait: minutes(0), Grace: minutes(5), Hard: minutes(60)},
	} {
		var g Grant
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(g.Hold, want) {
			t.Errorf("%s is read as %+v", text, g.Hold)
		}
		if again, err := json.Marshal(g); err != nil || string(again) != text {
			t.Errorf("%s is written as %s, %v", text, again, err)
		}
	}
}

func TestGrantHoldRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"hold":{"hardest":"1h"}}`:          "might be a restriction",
		`{"hold":{"Hard":"1h"}}`:             "might be a restriction",
		`{"hold":{"hard":"1h","hard":"2h"}}`: "duplicate",
		`{"hold":{"hard":"an hour"}}`:        "no duration",
		`{"hold":{"hard":"-1h"}}`:            "no duration",
		`{"hold":{"hard":60}}`:               "hold",
		`{"hold":"1h"}`:                      "hold",
	} {
		var g Grant
		if err := json.Unmarshal([]byte(text), &g); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want something with %q", text, err, want)
		}
	}
}
