package webhook

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestReferenceSignature: the vector by which implementations of Standard
// Webhooks are compared.
func TestReferenceSignature(t *testing.T) {
	secret, err := ParseSecret(" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
	if err != nil {
		t.Fatal(err)
	}
	got := sign([]Secret{secret}, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestVerify(t *testing.T) {
	current, old, other := newSecret(t, 'a'), newSecret(t, 'b'), newSecret(t, 'c')
	body := []byte("{}")
	timestamp := fmt.Sprint(noon.Unix())
	good := func() http.Header {
		h := http.Header{}
		h.Set(headerID, "msg_1")
		h.Set(headerTimestamp, timestamp)
		h.Set(headerSignature, sign([]Secret{current, old}, "msg_1", timestamp, body))
		return h
	}
	for _, secret := range []Secret{current, old} {
		for _, apart := range []time.Duration{-tolerance, 0, tolerance} {
			if err := Verify(secret, good(), body, noon.Add(apart)); err != nil {
				t.Errorf("%v apart: %v", apart, err)
			}
		}
	}
	for name, verify := range map[string]func() error{
		"another secret": func() error { return Verify(other, good(), body, noon) },
		"no secret":      func() error { return Verify(Secret{}, good(), body, noon) },
		"another body":   func() error { return Verify(current, good(), []byte("{} "), noon) },
		"later":          func() error { return Verify(current, good(), body, noon.Add(tolerance+time.Second)) },
		"earlier":        func() error { return Verify(current, good(), body, noon.Add(-tolerance-time.Second)) },
		"no headers":     func() error { return Verify(current, http.Header{}, body, noon) },
		"another ID":     func() error { h := good(); h.Set(headerID, "msg_2"); return Verify(current, h, body, noon) },
		"dots":           func() error { h := good(); h.Set(headerID, "msg.1"); return Verify(current, h, body, noon) },
		"another time": func() error {
			h := good()
			h.Set(headerTimestamp, fmt.Sprint(noon.Unix()+1))
			return Verify(current, h, body, noon)
		},
		"another version": func() error {
			h := good()
			h.Set(headerSignature, strings.ReplaceAll(h.Get(headerSignature), "v1,", "v2,"))
			return Verify(current, h, body, noon)
		},
	} {
		if verify() == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestParseSecret(t *testing.T) {
	for _, s := range []string{"", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqr\nTwjUPD8ILPZIo2LaLaSw",
		"whsec_" + strings.Repeat("A", 88), "whsec_!!!!9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
		_, err := ParseSecret(s)
		if err == nil {
			t.Errorf("%q is a secret", s)
			continue
		}
		if len(s) > 8 && strings.Contains(err.Error(), s[7:]) {
			t.Errorf("%q is in %v", s, err)
		}
	}
	s := newSecret(t, 'a')
	if text := fmt.Sprintf("%v %+v %#v %s %v", s, s, s, s, Config{Secrets: []Secret{s}}); strings.Contains(text, "aaa") || strings.Contains(text, "97 97") {
		t.Errorf("printed as %s", text)
	}
}
