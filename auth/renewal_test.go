package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
)

const headerRenewal = `{"alg":"EdDSA","typ":"stagedoor-renewal+jwt"}`

func TestRenewalRoundTrip(t *testing.T) {
	key, agent := newKey(t), newKey(t)
	for _, deadline := range []time.Time{noon.Add(time.Hour), {}} {
		renewal := Renewal{
			Task: someTask, AgentKey: publicOf(agent), IssuedAt: noon, Deadline: deadline,
			Grant: Grant{AuthorizedKeys: []string{line(newSigner(t).PublicKey(), "alice")}, Permissions: []string{}, Until: noon.Add(time.Hour)},
		}
		raw, err := MintRenewal(key, renewal)
		if err != nil {
			t.Fatal(err)
		}
		got, err := VerifyRenewal([]ed25519.PublicKey{publicOf(newKey(t)), publicOf(key)}, raw, noon)
		if err != nil || !reflect.DeepEqual(*got, renewal) {
			t.Errorf("%+v, %v, want %+v", got, err, renewal)
		}
	}
}

func TestRenewalExpires(t *testing.T) {
	key := newKey(t)
	keys := []ed25519.PublicKey{publicOf(key)}
	for _, c := range []struct{ deadline, end time.Time }{
		{noon.Add(time.Hour), noon.Add(time.Hour)},
		{time.Time{}, noon.Add(30 * 24 * time.Hour)}, // none that never expires
	} {
		raw, err := MintRenewal(key, Renewal{Task: someTask, AgentKey: publicOf(key), IssuedAt: noon, Deadline: c.deadline})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyRenewal(keys, raw, c.end.Add(-time.Second)); err != nil {
			t.Errorf("a second before %s: %v", c.end, err)
		}
		if _, err := VerifyRenewal(keys, raw, c.end); !errors.Is(err, ErrTokenExpired) || errors.Is(err, ErrTokenInvalid) {
			t.Errorf("at %s: %v", c.end, err)
		}
	}
}

func TestMintRenewalRefuses(t *testing.T) {
	key := newKey(t)
	good := Renewal{Task: someTask, AgentKey: publicOf(key), IssuedAt: noon, Deadline: noon.Add(time.Hour)}
	with := func(change func(*Renewal)) Renewal { c := good; change(&c); return c }
	for what, c := range map[string]struct {
		key ed25519.PrivateKey
		r   Renewal
	}{
		"no key":       {nil, good},
		"no task":      {key, with(func(r *Renewal) { r.Task = "" })},
		"no agent key": {key, with(func(r *Renewal) { r.AgentKey = nil })},
		"no issue":     {key, with(func(r *Renewal) { r.IssuedAt = time.Time{} })},
		"a bad grant":  {key, with(func(r *Renewal) { r.Grant.Permissions = []string{"x"} })},
	} {
		if raw, err := MintRenewal(c.key, c.r); err == nil || raw != "" {
			t.Errorf("%s: %q, %v", what, raw, err)
		}
	}
}

func TestRenewalIsRefused(t *testing.T) {
	key, agent := newKey(t), newKey(t)
	keys := []ed25519.PublicKey{publicOf(key)}
	claimsOf := func(change map[string]any) string {
		c := map[string]any{
			"aud": "stagedoor-renewal", "iat": noon.Unix(), "exp": noon.Add(time.Hour).Unix(), "task": "task-1234",
			"agent_key": base64.StdEncoding.EncodeToString(publicOf(agent)), "grant": map[string]any{},
		}
		maps.Copy(c, change)
		maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	signed := func(header string, change map[string]any) string {
		return jwstest.Compact(header, claimsOf(change), jwstest.EdDSA(key))
	}
	if _, err := VerifyRenewal(keys, signed(headerRenewal, nil), noon); err != nil {
		t.Fatal(err)
	}
	token, err := MintToken(key, Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ raw, want string }{
		"nothing":          {"", "three parts"},
		"a host token":     {token, "typ"},
		"typ JWT":          {signed(headerEdDSA, nil), "typ"},
		"no typ":           {signed(`{"alg":"EdDSA"}`, nil), "typ"},
		"alg none":         {jwstest.Compact(`{"alg":"none","typ":"stagedoor-renewal+jwt"}`, claimsOf(nil), jwstest.Unsigned), "none"},
		"HS256":            {jwstest.Compact(`{"alg":"HS256","typ":"stagedoor-renewal+jwt"}`, claimsOf(nil), jwstest.HS256(publicOf(key))), "HS256"},
		"another key":      {jwstest.Compact(headerRenewal, claimsOf(nil), jwstest.EdDSA(newKey(t))), "signature"},
		"aud of a token":   {signed(headerRenewal, map[string]any{"aud": "stagedoor"}), "aud"},
		"two audiences":    {signed(headerRenewal, map[string]any{"aud": []string{"stagedoor-renewal", "stagedoor"}}), "aud"},
		"no aud":           {signed(headerRenewal, map[string]any{"aud": nil}), "aud"},
		"no exp":           {signed(headerRenewal, map[string]any{"exp": nil}), "exp"},
		"no iat":           {signed(headerRenewal, map[string]any{"iat": nil}), "iat"},
		"no task":          {signed(headerRenewal, map[string]any{"task": nil}), "task"},
		"no agent key":     {signed(headerRenewal, map[string]any{"agent_key": nil}), "agent_key"},
		"a short key":      {signed(headerRenewal, map[string]any{"agent_key": "AAAA"}), "agent_key"},
		"a deadline of -1": {signed(headerRenewal, map[string]any{"deadline": -1}), "deadline"},
		"a bad grant":      {signed(headerRenewal, map[string]any{"grant": map[string]any{"more": 1}}), "more"},
		"huge":             {strings.Repeat("A", MaxRenewalSize+1), "bytes long"},
		"a line break":     {signed(headerRenewal, nil) + "\n", "do not belong"},
	} {
		if r, err := VerifyRenewal(keys, c.raw, noon); !errors.Is(err, ErrTokenInvalid) || r != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", what, r, err, c.want)
		}
	}
	for _, keys := range [][]ed25519.PublicKey{nil, {}, {nil}, {publicOf(key)[:8]}} {
		if _, err := VerifyRenewal(keys, signed(headerRenewal, nil), noon); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("keys %v: %v", keys, err)
		}
	}
}

// Neither passes for the other even where one key signs both.
func TestTokenAndRenewalAreNotConfused(t *testing.T) {
	key := newKey(t)
	renewal, err := MintRenewal(key, Renewal{Task: someTask, AgentKey: publicOf(key), IssuedAt: noon, Deadline: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	token, err := MintToken(key, Token{Task: someTask, Audience: renewalAudience, IssuedAt: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	v := &TokenVerifier{Keys: []any{publicOf(key)}, Audience: renewalAudience, Now: at(noon)}
	if _, err := v.Verify(t.Context(), renewal); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("renewal as token: %v", err)
	}
	if _, err := DecodeToken(renewal); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("renewal decoded as token: %v", err)
	}
	if _, err := VerifyRenewal([]ed25519.PublicKey{publicOf(key)}, token, noon); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("token as renewal: %v", err)
	}
}

// The largest token that is accepted can be renewed, whatever its comments
// hold.
func TestRenewalOfTheLargestToken(t *testing.T) {
	key := newKey(t)
	token := Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)}
	raw := ""
	for {
		more := token
		more.Grant.AuthorizedKeys = append(more.Grant.AuthorizedKeys, line(newSigner(t).PublicKey(), strings.Repeat("<&>", 20)))
		longer, err := MintToken(key, more)
		if err != nil {
			break
		}
		token, raw = more, longer
	}
	got, err := verifierFor(publicOf(key)).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	renewal, err := MintRenewal(key, Renewal{Task: got.Task, AgentKey: publicOf(key), IssuedAt: got.IssuedAt, Grant: got.Grant})
	if err != nil || len(raw) < MaxTokenSize-1024 {
		t.Errorf("a token of %d bytes with %d keys, a renewal of %d: %v", len(raw), len(token.Grant.AuthorizedKeys), len(renewal), err)
	}
}
