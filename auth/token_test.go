package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

var someSecret = []byte("0123456789abcdef0123456789abcdef")

const (
	headerEdDSA = `{"alg":"EdDSA","typ":"JWT"}`
	headerHS256 = `{"alg":"HS256","typ":"JWT"}`
)

// claims is a good token at noon, with members replaced, or with nil removed.
func claims(t testing.TB, change map[string]any) string {
	t.Helper()
	c := map[string]any{
		"aud": "stagedoor", "jti": "id-1", "iat": noon.Unix(), "exp": noon.Add(time.Hour).Unix(), "task": "task-1234",
		"grant": map[string]any{"authorized_keys": []string{}},
	}
	maps.Copy(c, change)
	for name, value := range change {
		if value == nil {
			delete(c, name)
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func verifierFor(keys ...any) *TokenVerifier { return &TokenVerifier{Keys: keys, Now: at(noon)} }

func TestTokenRoundTrip(t *testing.T) {
	key := newKey(t)
	alice := line(newSigner(t).PublicKey(), "alice <alice@example.com> & co")
	token := Token{
		Task: someTask, ID: "job/1234#5", Audience: "stagedoor", IssuedAt: noon, NotBefore: noon.Add(-time.Minute), Expires: noon.Add(2 * time.Hour),
		Grant: Grant{AuthorizedKeys: []string{alice, "no-pty " + alice}, Permissions: []string{PermitPTY}, Until: noon.Add(3 * time.Hour)},
	}
	for what, k := range map[string]struct{ sign, verify any }{"EdDSA": {key, publicOf(key)}, "HS256": {someSecret, someSecret}} {
		raw, err := MintToken(k.sign, token)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got, err := verifierFor(k.verify).Verify(t.Context(), raw)
		if err != nil || !reflect.DeepEqual(*got, token) {
			t.Errorf("%s: %+v, %v, want %+v", what, got, err, token)
		}
		decoded, err := DecodeToken(raw)
		if err != nil || !reflect.DeepEqual(*decoded, token) {
			t.Errorf("%s: decoded %+v, %v", what, decoded, err)
		}
	}
}

func TestTokenDefaults(t *testing.T) {
	before := time.Now().Truncate(time.Second)
	ids := map[string]bool{}
	for range 3 {
		raw, err := MintToken(someSecret, Token{Task: someTask, Expires: before.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := (&TokenVerifier{Keys: []any{someSecret}}).Verify(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		if ids[got.ID] || len(got.ID) < 20 || got.IssuedAt.Before(before) || got.Audience != DefaultAudience || !got.NotBefore.IsZero() {
			t.Errorf("%+v", got)
		}
		ids[got.ID] = true
	}
}

// nil and empty are worlds apart: everything and nothing.
func TestTokenKeepsAnEmptyListOfPermissions(t *testing.T) {
	for _, permissions := range [][]string{nil, {}, {PermitPTY}} {
		raw, err := MintToken(someSecret, Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour), Grant: Grant{Permissions: permissions}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := verifierFor(someSecret).Verify(t.Context(), raw)
		if err != nil || !reflect.DeepEqual(got.Grant.Permissions, permissions) {
			t.Errorf("%#v became %#v, %v", permissions, got.Grant.Permissions, err)
		}
	}
}

func TestMintTokenRefuses(t *testing.T) {
	key := newKey(t)
	good := Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)}
	many := good
	for range 100 {
		many.Grant.AuthorizedKeys = append(many.Grant.AuthorizedKeys, line(newSigner(t).PublicKey(), strings.Repeat("x", 300)))
	}
	with := func(change func(*Token)) Token { c := good; change(&c); return c }
	for what, c := range map[string]struct {
		key   any
		token Token
		want  string
	}{
		"no key":                 {nil, good, "not supported"},
		"a public key":           {publicOf(key), good, "cannot sign"},
		"a short private key":    {key[:10], good, "wrong length"},
		"a short secret":         {someSecret[:31], good, "31 bytes"},
		"a string":               {string(someSecret), good, "not supported"},
		"no task":                {key, with(func(t *Token) { t.Task = "" }), "task is missing"},
		"a bad task":             {key, with(func(t *Token) { t.Task = "-x" }), "claim task"},
		"no expiry":              {key, with(func(t *Token) { t.Expires = time.Time{} }), "exp is missing"},
		"expiry before issue":    {key, with(func(t *Token) { t.Expires = noon.Add(-time.Hour) }), "never valid"},
		"a control character":    {key, with(func(t *Token) { t.ID = "a\nb" }), "jti"},
		"a long ID":              {key, with(func(t *Token) { t.ID = strings.Repeat("x", 129) }), "jti"},
		"a key line of nonsense": {key, with(func(t *Token) { t.Grant.AuthorizedKeys = []string{"ssh-ed25519 AAAA"} }), "grant key 1:1"},
		"an unknown permission":  {key, with(func(t *Token) { t.Grant.Permissions = []string{"permit-all"} }), "permit-all"},
		"too many keys":          {key, many, "grant fewer keys"},
	} {
		if raw, err := MintToken(c.key, c.token); err == nil || raw != "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.20q, %v, want %q", what, raw, err, c.want)
		}
	}
}

// A key for tests of what is refused, and everything that could be mistaken for
// a secret of its.
func keyAndConfusions(t testing.TB) (ed25519.PrivateKey, map[string][]byte) {
	key := newKey(t)
	der, err := x509.MarshalPKIXPublicKey(publicOf(key))
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(publicOf(key))
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return key, map[string][]byte{
		"raw public key": publicOf(key), "DER": der, "PEM": block, "PEM trimmed": block[:len(block)-1],
		"base64url": []byte(base64.RawURLEncoding.EncodeToString(publicOf(key))), "ssh": ssh.MarshalAuthorizedKey(sshKey), "wire": sshKey.Marshal(), "nothing": {},
	}
}

func TestKeyConfusion(t *testing.T) {
	key, confusions := keyAndConfusions(t)
	for what, secret := range confusions {
		raw := jwstest.Compact(headerHS256, claims(t, nil), jwstest.HS256(secret))
		for _, v := range []*TokenVerifier{verifierFor(publicOf(key)), verifierFor(publicOf(key), someSecret)} {
			if token, err := v.Verify(t.Context(), raw); !errors.Is(err, ErrTokenInvalid) || token != nil {
				t.Errorf("HS256 with the %s of %d keys: %v, %v", what, len(v.Keys), token, err)
			}
		}
	}
	// The other way round: an Ed25519 signature where a secret is configured.
	raw := jwstest.Compact(headerEdDSA, claims(t, nil), jwstest.EdDSA(ed25519.NewKeyFromSeed(someSecret)))
	if _, err := verifierFor(someSecret).Verify(t.Context(), raw); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("EdDSA with the secret as seed: %v", err)
	}
}

func TestTokenIsRefused(t *testing.T) {
	key := newKey(t)
	sign := jwstest.EdDSA(key)
	good := jwstest.Compact(headerEdDSA, claims(t, nil), sign)
	if _, err := verifierFor(publicOf(key)).Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	token := func(change map[string]any) string { return jwstest.Compact(headerEdDSA, claims(t, change), sign) }
	header := func(h string) string { return jwstest.Compact(h, claims(t, nil), sign) }
	payload := func(p string) string { return jwstest.Compact(headerEdDSA, p, sign) }
	part := strings.Split(good, ".")
	sec := func(d time.Duration) int64 { return noon.Add(d).Unix() }
	renewal, err := MintRenewal(key, Renewal{Task: someTask, AgentKey: publicOf(key), IssuedAt: noon, Deadline: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	pub := base64.RawURLEncoding.EncodeToString(publicOf(newKey(t)))
	twice := func(member string) string {
		return payload(claims(t, nil)[:len(claims(t, nil))-1] + "," + member + "}")
	}
	for what, c := range map[string]struct{ raw, want string }{
		"nothing":                          {"", "three parts"},
		"a word":                           {"secret", "three parts"},
		"alg none":                         {jwstest.Compact(`{"alg":"none"}`, claims(t, nil), jwstest.Unsigned), `"none"`},
		"alg None with a signature":        {header(`{"alg":"None"}`), `"None"`},
		"alg empty":                        {header(`{"alg":""}`), `""`},
		"alg missing":                      {header(`{"typ":"JWT"}`), `""`},
		"alg is a number":                  {header(`{"alg":1}`), ""},
		"alg twice":                        {header(`{"alg":"none","alg":"EdDSA"}`), "header"},
		"alg HS256":                        {header(headerHS256), `"HS256"`},
		"alg RS256":                        {header(`{"alg":"RS256"}`), `"RS256"`},
		"alg ES256":                        {header(`{"alg":"ES256"}`), `"ES256"`},
		"alg in the wrong case":            {header(`{"alg":"EDDSA"}`), `"EDDSA"`},
		"alg under another name":           {header(`{"Alg":"EdDSA"}`), ""},
		"a long alg":                       {header(`{"alg":"` + strings.Repeat("x", 10000) + `"}`), "algorithm"},
		"another key":                      {jwstest.Compact(headerEdDSA, claims(t, nil), jwstest.EdDSA(newKey(t))), "signature"},
		"a key of its own":                 {jwstest.Compact(`{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+pub+`"}}`, claims(t, nil), jwstest.EdDSA(newKey(t))), "signature"},
		"no signature":                     {part[0] + "." + part[1] + ".", "signature"},
		"signature cut off":                {good[:len(good)-4], ""},
		"claims of another":                {part[0] + "." + strings.Split(token(map[string]any{"task": "root"}), ".")[1] + "." + part[2], "signature"},
		"two signatures":                   {good + "." + part[2], "three parts"},
		"two signatures in JSON":           {`{"payload":"` + part[1] + `","signatures":[{"protected":"` + part[0] + `","signature":"` + part[2] + `"},{"protected":"` + part[0] + `","signature":"` + part[2] + `"}]}`, "three parts"},
		"one signature in JSON":            {`{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`, "three parts"},
		"a line break at the end":          {good + "\n", "do not belong"},
		"a line break within":              {good[:10] + "\r\n" + good[10:], "do not belong"},
		"a space before":                   {" " + good, "do not belong"},
		"Bearer":                           {"Bearer " + good, "do not belong"},
		"quotes":                           {`"` + good + `"`, "do not belong"},
		"padding":                          {good + "==", "do not belong"},
		"trailing junk":                    {good + "A", ""},
		"stray bits in the last letter":    {part[0] + "." + part[1] + "." + jwstest.StrayBits(part[2]), "do not belong"},
		"a null byte":                      {good + "\x00", "do not belong"},
		"huge":                             {good + strings.Repeat("A", MaxTokenSize), "bytes long"},
		"five parts":                       {"a.b.c.d.e", "three parts"},
		"typ of a renewal":                 {header(`{"alg":"EdDSA","typ":"stagedoor-renewal+jwt"}`), "typ"},
		"typ unknown":                      {header(`{"alg":"EdDSA","typ":"at+jwt"}`), "typ"},
		"typ empty":                        {header(`{"alg":"EdDSA","typ":""}`), "typ"},
		"typ is a number":                  {header(`{"alg":"EdDSA","typ":1}`), "typ"},
		"crit":                             {header(`{"alg":"EdDSA","crit":["exp"],"exp":1}`), `"crit"`},
		"b64":                              {header(`{"alg":"EdDSA","b64":false,"crit":["b64"]}`), "not supported"},
		"header is no JSON":                {header(`{"alg":`), "header"},
		"header is null":                   {header(`null`), ""},
		"header with trailing junk":        {header(headerEdDSA + "{}"), "header"},
		"a renewal":                        {renewal, "typ"},
		"a renewal under typ JWT":          {retype(renewal, sign), "jti is missing"},
		"aud wrong":                        {token(map[string]any{"aud": "vault"}), `["vault"]`},
		"aud in part":                      {token(map[string]any{"aud": "stagedoor.example.com"}), "aud"},
		"aud in the wrong case":            {token(map[string]any{"aud": "Stagedoor"}), "aud"},
		"aud missing":                      {token(map[string]any{"aud": nil}), "aud is missing"},
		"aud empty":                        {token(map[string]any{"aud": []string{}}), "aud is missing"},
		"aud is a number":                  {token(map[string]any{"aud": 1}), "claims"},
		"exp missing":                      {token(map[string]any{"exp": nil}), "exp is missing"},
		"exp null":                         {payload(strings.Replace(claims(t, map[string]any{"exp": 77}), "77", "null", 1)), "exp is missing"},
		"exp is text":                      {token(map[string]any{"exp": "2030-01-01"}), "claims"},
		"exp negative":                     {token(map[string]any{"exp": -1}), "exp"},
		"exp beyond reason":                {token(map[string]any{"exp": 1e18}), "exp"},
		"exp beyond numbers":               {payload(strings.Replace(claims(t, map[string]any{"exp": 77}), "77", "1e999", 1)), "claims"},
		"exp before iat":                   {token(map[string]any{"exp": sec(-time.Hour)}), "never valid"},
		"nbf in the future":                {token(map[string]any{"nbf": sec(31 * time.Second)}), "nbf"},
		"nbf beyond reason":                {token(map[string]any{"nbf": 1e17}), "nbf"},
		"iat in the future":                {token(map[string]any{"iat": sec(31 * time.Second)}), "iat"},
		"iat missing":                      {token(map[string]any{"iat": nil}), "iat is missing"},
		"iat negative":                     {token(map[string]any{"iat": -5}), "iat"},
		"jti missing":                      {token(map[string]any{"jti": nil}), "jti is missing"},
		"jti empty":                        {token(map[string]any{"jti": ""}), "jti is missing"},
		"jti is a number":                  {token(map[string]any{"jti": 5}), "claims"},
		"jti long":                         {token(map[string]any{"jti": strings.Repeat("x", 129)}), "jti"},
		"jti with a line break":            {token(map[string]any{"jti": "a\nlevel=ERROR"}), "jti"},
		"task missing":                     {token(map[string]any{"task": nil}), "task is missing"},
		"task empty":                       {token(map[string]any{"task": ""}), "task is missing"},
		"task bad":                         {token(map[string]any{"task": "../etc"}), "task"},
		"task an option":                   {token(map[string]any{"task": "-oProxyCommand=x"}), "task"},
		"task long":                        {token(map[string]any{"task": strings.Repeat("x", 64)}), "task"},
		"task is a list":                   {token(map[string]any{"task": []string{"a"}}), "claims"},
		"task twice":                       {twice(`"task":"root"`), "duplicate"},
		"aud twice":                        {twice(`"aud":"stagedoor"`), "duplicate"},
		"exp twice":                        {twice(`"exp":1`), "duplicate"},
		"a duplicate of two lines":         {payload(`{"a\nlevel=ERROR":1,"a\nlevel=ERROR":2}`), "duplicate"},
		"many audiences":                   {token(map[string]any{"aud": strings.Split(strings.Repeat("vault\x1b[2J ", 500), " ")}), "aud"},
		"grant twice":                      {twice(`"grant":{}`), "duplicate"},
		"a member of the grant twice":      {payload(strings.Replace(claims(t, nil), `"authorized_keys":[]`, `"permissions":[],"permissions":null`, 1)), "duplicate"},
		"an unknown member of the grant":   {token(map[string]any{"grant": map[string]any{"source_address": "10.0.0.0/8"}}), "source_address"},
		"a member in the wrong case":       {token(map[string]any{"grant": map[string]any{"Permissions": []string{}}}), "Permissions"},
		"a grant that is a list":           {token(map[string]any{"grant": []string{}}), "grant"},
		"permissions that are text":        {token(map[string]any{"grant": map[string]any{"permissions": "permit-pty"}}), "permissions"},
		"a permission that does not exist": {token(map[string]any{"grant": map[string]any{"permissions": []string{"permit-root"}}}), "permit-root"},
		"a key that is none":               {token(map[string]any{"grant": map[string]any{"authorized_keys": []string{"alice"}}}), "grant key 1"},
		"two keys in one":                  {token(map[string]any{"grant": map[string]any{"authorized_keys": []string{"\n"}}}), "more than one line"},
		"a comment for a key":              {token(map[string]any{"grant": map[string]any{"authorized_keys": []string{"# alice"}}}), "no key"},
		"until is text":                    {token(map[string]any{"grant": map[string]any{"until": "tomorrow"}}), "until"},
		"until negative":                   {token(map[string]any{"grant": map[string]any{"until": -1}}), "until"},
		"claims are a list":                {payload(`[]`), "claims"},
		"claims are null":                  {payload(`null`), "task is missing"},
		"claims are nothing":               {payload(``), ""},
		"claims with trailing junk":        {payload(claims(t, nil) + `{}`), "claims"},
	} {
		for _, v := range []*TokenVerifier{verifierFor(publicOf(key)), verifierFor(publicOf(newKey(t)), publicOf(key))} {
			token, err := v.Verify(t.Context(), c.raw)
			if !errors.Is(err, ErrTokenInvalid) || errors.Is(err, ErrTokenExpired) || token != nil {
				t.Errorf("%s: %+v, %v, want ErrTokenInvalid", what, token, err)
				continue
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", what, err, c.want)
			}
			testenv.CheckText(t, err)
			if strings.Contains(err.Error(), part[2]) {
				t.Errorf("%s: the error holds the signature: %v", what, err)
			}
		}
	}
}

// As deep as a token can be: whatever the answer, there must be one.
func TestTokenThatNests(t *testing.T) {
	key := newKey(t)
	deep := strings.Repeat("[", 10000) + strings.Repeat("]", 10000)
	for _, raw := range []string{
		jwstest.Compact(`{"alg":"EdDSA","x":`+deep+`}`, claims(t, nil), jwstest.EdDSA(key)),
		jwstest.Compact(headerEdDSA, `{"x":`+deep+`}`, jwstest.EdDSA(key)),
		jwstest.Compact(headerEdDSA, `{"grant":`+deep+`}`, jwstest.EdDSA(key)),
	} {
		if len(raw) > MaxTokenSize {
			t.Fatalf("%d bytes are too many to test with", len(raw))
		}
		if _, err := verifierFor(publicOf(key)).Verify(t.Context(), raw); err != nil && !errors.Is(err, ErrTokenInvalid) {
			t.Error(err)
		}
	}
}

func decodeHeader(t testing.TB, raw string) string {
	t.Helper()
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(header)
}

// retype signs the claims of a token again, under typ JWT.
func retype(raw string, sign func([]byte) []byte) string {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		panic(err)
	}
	return jwstest.Compact(headerEdDSA, string(payload), sign)
}

func TestTokenForms(t *testing.T) {
	key := newKey(t)
	for what, raw := range map[string]string{
		"no typ":              jwstest.Compact(`{"alg":"EdDSA"}`, claims(t, nil), jwstest.EdDSA(key)),
		"typ in lower case":   jwstest.Compact(`{"alg":"EdDSA","typ":"jwt"}`, claims(t, nil), jwstest.EdDSA(key)),
		"a key ID":            jwstest.Compact(`{"alg":"EdDSA","kid":"2026-03"}`, claims(t, nil), jwstest.EdDSA(key)),
		"several audiences":   jwstest.Compact(headerEdDSA, claims(t, map[string]any{"aud": []string{"vault", "stagedoor"}}), jwstest.EdDSA(key)),
		"more claims":         jwstest.Compact(headerEdDSA, claims(t, map[string]any{"iss": "ci", "sub": "repo", "ref": "main"}), jwstest.EdDSA(key)),
		"no grant":            jwstest.Compact(headerEdDSA, claims(t, map[string]any{"grant": nil}), jwstest.EdDSA(key)),
		"upper case task":     jwstest.Compact(headerEdDSA, claims(t, map[string]any{"task": "TASK-1234"}), jwstest.EdDSA(key)),
		"times with fraction": jwstest.Compact(headerEdDSA, claims(t, map[string]any{"iat": float64(noon.Unix()) + 0.75}), jwstest.EdDSA(key)),
	} {
		token, err := verifierFor(publicOf(key)).Verify(t.Context(), raw)
		if err != nil || token.Task != someTask || token.Audience != "stagedoor" || !token.IssuedAt.Equal(noon) {
			t.Errorf("%s: %+v, %v", what, token, err)
		}
	}
}

// A grant that is not there lets nobody in.
func TestTokenWithoutGrantAdmitsNobody(t *testing.T) {
	for _, change := range []map[string]any{{"grant": nil}, {"grant": map[string]any{}}, {"grant": map[string]any{"authorized_keys": nil}}} {
		token, err := verifierFor(someSecret).Verify(t.Context(), jwstest.Compact(headerHS256, claims(t, change), jwstest.HS256(someSecret)))
		if err != nil {
			t.Fatal(err)
		}
		id := Identity{Key: newSigner(t).PublicKey()}
		if _, err := (GrantKeys{}).Authorize(t.Context(), id, Task{ID: someTask, Grant: &token.Grant}); !errors.Is(err, ErrDenied) {
			t.Errorf("%v: %v", change, err)
		}
	}
}

func TestTokenTimes(t *testing.T) {
	raw, err := MintToken(someSecret, Token{Task: someTask, IssuedAt: noon, NotBefore: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		leeway time.Duration
		now    time.Duration // after noon
		want   error
	}{
		{0, 0, nil},
		{0, -30 * time.Second, nil},
		{0, -31 * time.Second, ErrTokenInvalid},
		{0, time.Hour + 29*time.Second, nil},
		{0, time.Hour + 30*time.Second, ErrTokenExpired},
		{-1, 0, nil},
		{-1, -time.Second, ErrTokenInvalid},
		{-1, time.Hour - time.Second, nil},
		{-1, time.Hour, ErrTokenExpired},
		{5 * time.Minute, -5 * time.Minute, nil},
		{5 * time.Minute, time.Hour + 5*time.Minute - time.Second, nil},
		{5 * time.Minute, 2 * time.Hour, ErrTokenExpired},
		{0, -60 * 365 * 24 * time.Hour, ErrTokenInvalid},
	} {
		v := &TokenVerifier{Keys: []any{someSecret}, Leeway: c.leeway, Now: at(noon.Add(c.now))}
		if _, err := v.Verify(t.Context(), raw); !errors.Is(err, c.want) {
			t.Errorf("leeway %v, %v after noon: %v, want %v", c.leeway, c.now, err, c.want)
		}
	}
	for maxTTL, ok := range map[time.Duration]bool{0: true, time.Hour: true, time.Hour - time.Second: false} {
		v := &TokenVerifier{Keys: []any{someSecret}, MaxTTL: maxTTL, Now: at(noon)}
		if _, err := v.Verify(t.Context(), raw); (err == nil) != ok {
			t.Errorf("MaxTTL %v: %v", maxTTL, err)
		}
	}
}

func TestTokenAudience(t *testing.T) {
	raw, err := MintToken(someSecret, Token{Task: someTask, Audience: "https://a.example.com", IssuedAt: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	v := verifierFor(someSecret)
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("for another gateway: %v", err)
	}
	v.Audience = "https://a.example.com"
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Error(err)
	}
}

func TestVerifierWithoutUsableKeys(t *testing.T) {
	key := newKey(t)
	raw, err := MintToken(key, Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for what, v := range map[string]*TokenVerifier{
		"nil":                 nil,
		"no keys":             verifierFor(),
		"a nil key":           verifierFor(nil),
		"a private key":       verifierFor(key),
		"one good, one short": verifierFor(publicOf(key), someSecret[:8]),
		"an empty key":        verifierFor(ed25519.PublicKey{}),
		"an SSH key":          verifierFor(newSigner(t).PublicKey()),
	} {
		if v.Check() == nil {
			t.Errorf("%s: Check finds nothing", what)
		}
		if _, err := v.Verify(t.Context(), raw); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := verifierFor(publicOf(key), someSecret).Check(); err != nil {
		t.Error(err)
	}
}

func TestSeveralKeys(t *testing.T) {
	a, b := newKey(t), newKey(t)
	v := verifierFor(publicOf(a), []byte(strings.Repeat("s", 32)), publicOf(b), someSecret)
	for _, key := range []any{a, b, someSecret} {
		raw, err := MintToken(key, Token{Task: someTask, IssuedAt: noon, Expires: noon.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
}

// The agent reads what a gateway may accept one day, and nothing that was not
// meant to be a token.
func TestDecodeToken(t *testing.T) {
	for _, alg := range []string{"EdDSA", "HS256", "ES256", "RS256"} {
		raw := jwstest.Compact(`{"alg":"`+alg+`"}`, claims(t, map[string]any{"exp": 2, "iat": 1, "aud": "other"}), func([]byte) []byte { return []byte("any") })
		if token, err := DecodeToken(raw); err != nil || token.Task != someTask {
			t.Errorf("%s: %v, %v", alg, token, err)
		}
	}
	for what, raw := range map[string]string{
		"none":        jwstest.Compact(`{"alg":"none"}`, claims(t, nil), jwstest.Unsigned),
		"no exp":      jwstest.Compact(headerEdDSA, claims(t, map[string]any{"exp": nil}), jwstest.Unsigned),
		"no task":     jwstest.Compact(headerEdDSA, claims(t, map[string]any{"task": nil}), jwstest.Unsigned),
		"bad grant":   jwstest.Compact(headerEdDSA, claims(t, map[string]any{"grant": map[string]any{"permissions": []string{"x"}}}), jwstest.Unsigned),
		"renewal typ": jwstest.Compact(`{"alg":"EdDSA","typ":"stagedoor-renewal+jwt"}`, claims(t, nil), jwstest.Unsigned),
		"white space": jwstest.Compact(headerEdDSA, claims(t, nil), jwstest.Unsigned) + "\n",
		"nothing":     "",
	} {
		if token, err := DecodeToken(raw); !errors.Is(err, ErrTokenInvalid) || token != nil {
			t.Errorf("%s: %v, %v", what, token, err)
		}
	}
}

func FuzzTokenVerify(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // the same in all workers
	for _, change := range []map[string]any{nil, {"grant": map[string]any{"permissions": []string{PermitPTY}, "until": 5}}, {"exp": nil}, {"task": "-"}} {
		f.Add(headerEdDSA, claims(f, change))
	}
	f.Add(`{"alg":"none"}`, "{}")
	f.Add(headerHS256, `{"aud":["stagedoor"],"jti":"1","iat":1772366400,"exp":1772370000.5,"task":"A"}`)
	v := verifierFor(publicOf(key), someSecret)
	f.Fuzz(func(t *testing.T, header, payload string) {
		if token, err := v.Verify(t.Context(), header+"."+payload); token != nil || !errors.Is(err, ErrTokenInvalid) {
			t.Fatalf("%v, %v", token, err)
		}
		// Signed for the fuzzer, so that it gets to the claims.
		for _, raw := range []string{jwstest.Compact(header, payload, jwstest.EdDSA(key)), jwstest.Compact(header, payload, jwstest.HS256(someSecret))} {
			token, err := v.Verify(t.Context(), raw)
			if err != nil {
				testenv.CheckText(t, err)
				if token != nil || !errors.Is(err, ErrTokenInvalid) && !errors.Is(err, ErrTokenExpired) {
					t.Fatalf("%v, %v", token, err)
				}
				continue
			}
			if parsed, err := ParseTaskID(string(token.Task)); err != nil || parsed != token.Task || token.ID == "" || !token.Expires.After(noon.Add(-time.Minute)) || token.Grant.Check() != nil {
				t.Fatalf("accepted %+v", token)
			}
			if _, err := MintRenewal(key, Renewal{Task: token.Task, AgentKey: publicOf(key), IssuedAt: token.IssuedAt, Deadline: token.Grant.Until, Grant: token.Grant}); err != nil {
				t.Fatalf("no renewal for %+v: %v", token, err)
			}
		}
	})
}

func ExampleMintToken() {
	key := []byte("a secret of the gateway and the CI system")
	raw, err := MintToken(key, Token{
		Task:    "task-1234",
		Expires: time.Now().Add(2 * time.Hour),
		Grant:   Grant{AuthorizedKeys: []string{"restrict,pty ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrDbM2EDsTGmS8PXPAOIrN7nIbbWVSVIN2+MUfLeLOG alice"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := (&TokenVerifier{Keys: []any{key}}).Verify(context.Background(), raw)
	fmt.Println(token.Task, err)
	// Output: task-1234 <nil>
}
