package issuer

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
)

func TestVerify(t *testing.T) {
	s := newCI(t)
	v, _ := s.verifier(t, simple())
	id := wantGood(t, v, s.token(map[string]any{"number": 7, "yes": true, "list": []string{"a"}, "null": nil, "object": map[string]any{}, "fraction": 1.5, "empty": ""}))
	want := &Identity{
		Provider: "ci", Issuer: s.URL, Task: "ci-7", ID: "ci:4a576b35-ff09-41c5-af2c-ca62dd89b76a", IssuedAt: noon, Expires: noon.Add(5 * time.Minute),
		Claims: map[string]string{
			"iss": s.URL, "aud": gateway, "sub": "job", "jti": "4a576b35-ff09-41c5-af2c-ca62dd89b76a", "job_id": "7", "number": "7", "yes": "true", "empty": "",
			"iat": "1772366400", "nbf": "1772366100", "exp": "1772366700",
		},
	}
	if !reflect.DeepEqual(id, want) {
		t.Errorf("%+v, want %+v", id, want)
	}
	if err := v.Check(t.Context()); err != nil {
		t.Error(err)
	}
	// A claim that is not there is not the one that is in other letters.
	wantBad(t, v, s.token(map[string]any{"job_id": nil, "Job_ID": "7"}), auth.ErrTokenInvalid, "job_id is missing")
}

func TestSignature(t *testing.T) {
	s := newCI(t)
	v, _ := s.verifier(t, simple())
	payload := string(must(json.Marshal(s.claimsOf(nil))))
	wantBad(t, v, jwstest.Compact(`{"alg":"none"}`, payload, func([]byte) []byte { return nil }), auth.ErrTokenInvalid, "none")
	wantBad(t, v, jwstest.Compact(`{"alg":"none","kid":"1"}`, payload, jwstest.RS256(jwstest.RSA())), auth.ErrTokenInvalid, "none")

	der := must(x509.MarshalPKIXPublicKey(jwstest.RSA().Public()))
	for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), x509.MarshalPKCS1PublicKey(&jwstest.RSA().PublicKey), jwstest.RSA().N.Bytes()} {
		wantBad(t, v, jwstest.Compact(`{"alg":"HS256","kid":"1"}`, payload, func(input []byte) []byte {
			mac := hmac.New(sha256.New, secret)
			mac.Write(input)
			return mac.Sum(nil)
		}), auth.ErrTokenInvalid, "HS256")
	}
	// Algorithms are those of the profile, even if there is a key.
	s.answers(nil, keysOf("1", jwstest.Ed25519()))
	wantBad(t, v, jwstest.Compact(`{"alg":"EdDSA","kid":"1"}`, payload, func(input []byte) []byte { return nil }), auth.ErrTokenInvalid, "EdDSA")

	token := s.token(nil)
	wantBad(t, v, token[:len(token)-10]+"AAAAAAAAAA", auth.ErrTokenInvalid, "")
	wantBad(t, v, strings.Replace(token, ".", ".e30", 1), auth.ErrTokenInvalid, "")
}

func TestEdDSA(t *testing.T) {
	s, key := newCI(t), jwstest.Ed25519()
	s.answers(jsonOf(map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/jwks"}), keysOf("1", key))
	p := simple()
	p.Algorithms = []string{"EdDSA", "ES256"}
	v, _ := s.verifier(t, p)
	payload := string(must(json.Marshal(s.claimsOf(nil))))
	wantGood(t, v, jwstest.Compact(`{"alg":"EdDSA","kid":"1"}`, payload, func(input []byte) []byte { return ed25519.Sign(key, input) }))
	wantBad(t, v, s.token(nil), auth.ErrTokenInvalid, "RS256")
}

func TestClaims(t *testing.T) {
	s := newCI(t)
	p := simple()
	p.Require = map[string][]string{"owner": {"acme", "acme-*"}, "ref": {"*"}}
	v, _ := s.verifier(t, p)
	with := func(change map[string]any) string {
		c := s.claimsOf(map[string]any{"owner": "acme", "ref": "refs/heads/main"})
		for name, value := range change {
			c[name] = value
			if value == nil {
				delete(c, name)
			}
		}
		return signed(string(must(json.Marshal(c))))
	}
	wantGood(t, v, with(nil))
	wantGood(t, v, with(map[string]any{"owner": "acme-labs"}))
	wantGood(t, v, with(map[string]any{"aud": []string{gateway}}))
	wantGood(t, v, with(map[string]any{"ref": 7}))
	wantGood(t, v, with(map[string]any{"nbf": nil}))
	wantGood(t, v, with(map[string]any{"exp": 1772366700.9}))

	for what, c := range map[string]struct {
		change map[string]any
		text   string
	}{
		"other issuer":             {map[string]any{"iss": "https://evil.example.com"}, "iss"},
		"issuer with a slash":      {map[string]any{"iss": s.URL + "/"}, "iss"},
		"issuer in upper case":     {map[string]any{"iss": strings.ToUpper(s.URL)}, "iss"},
		"no issuer":                {map[string]any{"iss": nil}, "iss"},
		"issuer a list":            {map[string]any{"iss": []string{s.URL}}, "iss"},
		"other audience":           {map[string]any{"aud": "https://gateway.example.org"}, "request a token for the audience"},
		"audience with a slash":    {map[string]any{"aud": gateway + "/"}, "request a token for the audience"},
		"audience is a part":       {map[string]any{"aud": "https://gateway"}, "request a token for the audience"},
		"several audiences":        {map[string]any{"aud": []string{gateway, "sts.example.com"}}, "names 2 audiences"},
		"the audience twice":       {map[string]any{"aud": []string{gateway, gateway}}, "names 2 audiences"},
		"no audience":              {map[string]any{"aud": nil}, "aud is missing"},
		"audiences of none":        {map[string]any{"aud": []string{}}, "names 0 audiences"},
		"empty audience":           {map[string]any{"aud": ""}, "aud is"},
		"audience a number":        {map[string]any{"aud": 7}, "neither text nor a list"},
		"audience list of numbers": {map[string]any{"aud": []any{gateway, 7}}, "no list of texts"},
		"no exp":                   {map[string]any{"exp": nil}, "exp is missing"},
		"no iat":                   {map[string]any{"iat": nil}, "iat is missing"},
		"exp is text":              {map[string]any{"exp": "1772366700"}, "exp is no number"},
		"iat is true":              {map[string]any{"iat": true}, "iat is no number"},
		"nbf is a list":            {map[string]any{"nbf": []int{1}}, "nbf is no number"},
		"exp beyond time":          {map[string]any{"exp": 1e300}, "not a time"},
		"exp in milliseconds":      {map[string]any{"exp": noon.UnixMilli()}, "not a time"},
		"iat before time":          {map[string]any{"iat": -1}, "not a time"},
		"exp before iat":           {map[string]any{"exp": noon.Add(-time.Second).Unix()}, "never valid"},
		"no jti":                   {map[string]any{"jti": nil}, "jti is missing"},
		"empty jti":                {map[string]any{"jti": ""}, "jti must be"},
		"jti a number":             {map[string]any{"jti": 7}, "jti must be"},
		"jti with a line break":    {map[string]any{"jti": "a\nb"}, "jti must be"},
		"jti with a space":         {map[string]any{"jti": "a b"}, "jti must be"},
		"jti too long":             {map[string]any{"jti": strings.Repeat("a", 97)}, "jti must be"},
		"required missing":         {map[string]any{"ref": nil}, "ref is missing"},
		"required empty":           {map[string]any{"ref": ""}, "ref is empty"},
		"required a list":          {map[string]any{"ref": []string{"refs/heads/main"}}, "ref is neither"},
		"required an object":       {map[string]any{"owner": map[string]any{"acme": "acme"}}, "owner is neither"},
		"required a fraction":      {map[string]any{"ref": 1.5}, "ref is neither"},
		"required other":           {map[string]any{"owner": "acm"}, `owner is "acm"`},
		"required in upper case":   {map[string]any{"owner": "Acme"}, `owner is "Acme"`},
		"required with more":       {map[string]any{"owner": "acme\n"}, `owner is "acme\n"`},
		"required by prefix":       {map[string]any{"owner": "acmes"}, `owner is "acmes"`},
		"job missing":              {map[string]any{"job_id": nil}, "job_id is missing"},
		"job empty":                {map[string]any{"job_id": ""}, "job_id is empty"},
		"job null in JSON":         {map[string]any{"job_id": json.RawMessage("null")}, "job_id is missing"},
		"job with an exponent":     {map[string]any{"job_id": json.RawMessage("7e0")}, "job_id is neither"},
		"job too long":             {map[string]any{"job_id": strings.Repeat("7", 61)}, "64 characters"},
	} {
		t.Run(what, func(t *testing.T) { wantBad(t, v, with(c.change), auth.ErrTokenInvalid, c.text) })
	}
	// What is required is the operator's business.
	_, err := v.Verify(t.Context(), with(map[string]any{"owner": "mallory"}))
	if strings.Contains(err.Error(), "acme") {
		t.Errorf("%v", err)
	}
}

func TestTimes(t *testing.T) {
	s := newCI(t)
	token := s.token(nil) // noon - 5 min < noon < noon + 5 min
	for what, c := range map[string]struct {
		leeway, at time.Duration
		kind       error
		text       string
	}{
		"at noon":                     {0, 0, nil, ""},
		"a little early":              {0, -30 * time.Second, nil, ""},
		"too early for iat":           {0, -31 * time.Second, auth.ErrTokenInvalid, "iat"},
		"too early for nbf":           {0, -6 * time.Minute, auth.ErrTokenInvalid, "nbf"},
		"a little late":               {0, 5*time.Minute + 29*time.Second, nil, ""},
		"too late":                    {0, 5*time.Minute + 30*time.Second, auth.ErrTokenExpired, "request a new one"},
		"late by a year":              {0, 365 * 24 * time.Hour, auth.ErrTokenExpired, ""},
		"no leeway, in time":          {-1, 5*time.Minute - time.Second, nil, ""},
		"no leeway, too late":         {-1, 5 * time.Minute, auth.ErrTokenExpired, ""},
		"no leeway, early":            {-1, -time.Second, auth.ErrTokenInvalid, "iat"},
		"a minute's leeway":           {time.Minute, 5*time.Minute + 59*time.Second, nil, ""},
		"a minute's leeway, too late": {time.Minute, 6 * time.Minute, auth.ErrTokenExpired, ""},
	} {
		t.Run(what, func(t *testing.T) {
			v, clock := s.verifier(t, simple(), func(o *Options) { o.Leeway = c.leeway })
			clock.Advance(c.at)
			if c.kind == nil {
				wantGood(t, v, token)
			} else {
				wantBad(t, v, token, c.kind, c.text)
			}
		})
	}
	v, _ := s.verifier(t, simple(), func(o *Options) { o.MaxTTL = 5*time.Minute - 1 })
	wantBad(t, v, token, auth.ErrTokenInvalid, "accepts")
	v, _ = s.verifier(t, simple(), func(o *Options) { o.MaxTTL = 5 * time.Minute })
	wantGood(t, v, token)
}

func TestPayload(t *testing.T) {
	s := newCI(t)
	v, _ := s.verifier(t, simple())
	good := string(must(json.Marshal(s.claimsOf(nil))))
	insert := func(member string) string { return strings.TrimSuffix(good, "}") + "," + member + "}" }
	wantGood(t, v, signed(good))
	wantGood(t, v, signed(" "+good+"\n"))
	for what, payload := range map[string]string{
		"a name twice":          insert(`"job_id":"8"`),
		"the same twice":        insert(`"job_id":"7"`),
		"twice, by an escape":   insert(`"job\u005fid":"8"`),
		"the issuer twice":      insert(`"iss":"https://evil.example.com"`),
		"twice, further inside": insert(`"x":{"a":1,"a":2}`),
		"in a list":             insert(`"x":[{"a":1,"a":2}]`),
		"not UTF-8":             insert("\"x\":\"\xff\""),
		"more behind it":        good + good,
		"rubbish behind it":     good + "x",
		"cut off":               good[:len(good)-1],
		"a list":                "[" + good + "]",
		"null":                  "null",
		"text":                  `"` + s.URL + `"`,
		"nothing":               "",
		"deep":                  insert(`"x":` + strings.Repeat("[", 10000)),
	} {
		t.Run(what, func(t *testing.T) { wantBad(t, v, signed(payload), auth.ErrTokenInvalid, "claims cannot be read") })
	}
	wantBad(t, v, signed(insert(`"x":"`+strings.Repeat("x", 32<<10)+`"`)), auth.ErrTokenInvalid, "bytes long")
	wantBad(t, v, strings.Repeat("x", 10<<20), auth.ErrTokenInvalid, "bytes long")
	wantBad(t, v, "", auth.ErrTokenInvalid, "three parts")
	// Half a surrogate pair is no character, and would be the same as another half.
	wantBad(t, v, s.token(map[string]any{"job_id": json.RawMessage(`"\ud800"`)}), auth.ErrTokenInvalid, "not Unicode")
}

// Tokens without a jti are told apart by what they say.
func TestTokenWithoutID(t *testing.T) {
	s := newCI(t)
	p := simple()
	p.NoTokenID = true
	v, _ := s.verifier(t, p)
	a := wantGood(t, v, s.token(map[string]any{"jti": nil}))
	again := wantGood(t, v, s.token(map[string]any{"jti": nil}))
	later := wantGood(t, v, s.token(map[string]any{"jti": nil, "iat": noon.Unix() - 1}))
	other := wantGood(t, v, s.token(map[string]any{"jti": nil, "job_id": "8"}))
	if a.ID != again.ID || a.ID == later.ID || a.ID == other.ID || len(a.ID) > 128 || !strings.HasPrefix(a.ID, "ci:") {
		t.Errorf("%q, again %q, later %q, other %q", a.ID, again.ID, later.ID, other.ID)
	}
	// The header is not part of it: nor is the signature, which for ES256 anybody can change.
	payload := string(must(json.Marshal(s.claimsOf(map[string]any{"jti": nil}))))
	header := wantGood(t, v, jwstest.Compact(`{"alg":"RS256"}`, payload, jwstest.RS256(jwstest.RSA())))
	if header.ID != a.ID {
		t.Errorf("%q with another header, %q", header.ID, a.ID)
	}
}
