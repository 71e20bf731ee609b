package jwks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// with returns a copy of a member with others added; nil removes one.
func with(m map[string]any, change map[string]any) map[string]any {
	c := maps.Clone(m)
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func TestParse(t *testing.T) {
	ed, ec, big := webKeyOf("a", jwstest.Ed25519()), webKeyOf("b", jwstest.P256()), webKeyOf("c", jwstest.RSA())
	one, _ := json.Marshal(ed)
	foreign := []map[string]any{
		with(big, map[string]any{"use": "enc"}),
		with(big, map[string]any{"key_ops": []string{"encrypt"}}),
		with(big, map[string]any{"alg": "PS256"}),
		with(big, map[string]any{"alg": "RSA-OAEP"}),
		with(ed, map[string]any{"crv": "X25519"}),
		webKeyOf("p384", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))),
		{"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA"},
		{"kty": "something new", "kid": "x"},
		{},
	}
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"a set":            {setOf(ed, ec, big), "a EdDSA, b ES256, c RS256"},
		"one key":          {one, "a EdDSA"},
		"with algorithm":   {setOf(with(ed, map[string]any{"alg": "EdDSA"}), with(ec, map[string]any{"alg": "ES256", "key_ops": []string{"verify"}})), "a EdDSA, b ES256"},
		"no use, no kid":   {setOf(with(big, map[string]any{"use": nil, "kid": nil})), " RS256"},
		"others beside it": {setOf(append(foreign, big)...), "c RS256"},
		"PEM":              {jwstest.PEM(jwstest.RSA()), " RS256"},
		"PEMs":             {append(jwstest.PEM(jwstest.Ed25519()), jwstest.PEM(jwstest.P256())...), " EdDSA,  ES256"},
		// Certificates are not looked at, whatever is wrong with them.
		"certificates": {setOf(with(big, map[string]any{"x5c": []string{"AAAA"}, "x5t": "??"})), "c RS256"},
	} {
		keys, err := Parse(c.data)
		var got []string
		for _, k := range keys {
			got = append(got, k.ID+" "+string(k.Algorithm))
		}
		if err != nil || strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, %v, want %q", what, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	ed, ec, big := webKeyOf("a", jwstest.Ed25519()), webKeyOf("b", jwstest.P256()), webKeyOf("c", jwstest.RSA())
	weak := webKeyOf("weak", weakRSA())
	private := must(jose.JSONWebKey{Key: jwstest.Ed25519(), KeyID: "p"}.MarshalJSON())
	privateRSA := must(jose.JSONWebKey{Key: jwstest.RSA(), KeyID: "p"}.MarshalJSON())
	secret := must(jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "s"}.MarshalJSON())
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":             {nil, "key set"},
		"white space":         {[]byte(" \n"), "key set"},
		"no JSON":             {[]byte("<html>\x1b[2J"), "key set"},
		"JSON of other form":  {[]byte(`[]`), "key set"},
		"keys no list":        {[]byte(`{"keys":7}`), "key set"},
		"an empty set":        {[]byte(`{"keys":[]}`), "no key"},
		"cut off":             {setOf(ed)[:40], "key set"},
		"more behind it":      {append(setOf(ed), '{'), "key set"},
		"keys twice":          {[]byte(`{"keys":[],"keys":[]}`), "key set"},
		"a member twice":      {[]byte(`{"keys":[{"kty":"RSA","kty":"OKP"}]}`), "key 1"},
		"only others":         {setOf(with(big, map[string]any{"use": "enc"})), "no key"},
		"a weak key":          {setOf(ed, weak), "1024 bits"},
		"a weak key in PEM":   {jwstest.PEM(weakRSA()), "1024 bits"},
		"a giant key":         {setOf(with(big, map[string]any{"n": strings.Repeat("_w", 700)})), "too large"},
		"exponent 1":          {setOf(with(big, map[string]any{"e": "AQ"})), "key 1"},
		"exponent 2":          {setOf(with(big, map[string]any{"e": "Ag"})), "numbers"},
		"an even modulus":     {setOf(with(big, map[string]any{"n": strings.Repeat("_w", 170) + "_g"})), "numbers"},
		"not on the curve":    {setOf(with(ec, map[string]any{"y": ec["x"]})), "key 1"},
		"short coordinates":   {setOf(with(ec, map[string]any{"x": "AAAA"})), "key 1"},
		"short Ed25519":       {setOf(with(ed, map[string]any{"x": "AAAA"})), "key 1"},
		"missing numbers":     {setOf(map[string]any{"kty": "RSA", "kid": "x"}), "key 1"},
		"other algorithm":     {setOf(with(ed, map[string]any{"alg": "RS256"})), "alg"},
		"a long kid":          {setOf(with(ed, map[string]any{"kid": strings.Repeat("k", 513)})), "kid"},
		"kid no text":         {setOf(with(ed, map[string]any{"kid": 7})), "key 1"},
		"a private key":       {private, "private"},
		"a private RSA key":   {privateRSA, "private"},
		"a shared secret":     {secret, "shared secret"},
		"private in a set":    {setOf(ed, member(private)), "private"},
		"too many":            {setOf(many(ed, maxKeys+1)...), "257 keys"},
		"too many in PEM":     {[]byte(strings.Repeat(string(jwstest.PEM(jwstest.Ed25519())), maxKeys+1)), "256 keys"},
		"a private PEM":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(jwstest.Ed25519()))}), "private"},
		"a certificate":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "PUBLIC KEY"},
		"PEM of nothing":      {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), ""},
		"PEM on other curve":  {jwstest.PEM(must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))), "P-384"},
		"PEM and other text":  {append(jwstest.PEM(jwstest.Ed25519()), "and so on"...), "PEM"},
		"PEM that is cut off": {jwstest.PEM(jwstest.Ed25519())[:60], "PEM"},
	} {
		keys, err := Parse(c.data)
		if err == nil || keys != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", what, keys, err, c.want)
			continue
		}
		testenv.CheckText(t, err)
	}
}

func weakRSA() *rsa.PrivateKey {
	// Made with openssl genrsa 1024: Go makes none any more.
	block, _ := pem.Decode([]byte(weakKey))
	return must(x509.ParsePKCS1PrivateKey(block.Bytes))
}

func member(data []byte) (m map[string]any) {
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

func many(m map[string]any, n int) (list []map[string]any) {
	for i := range n {
		list = append(list, with(m, map[string]any{"kid": fmt.Sprint(i)}))
	}
	return list
}

func FuzzParse(f *testing.F) {
	f.Add(setOf(webKeyOf("a", jwstest.Ed25519()), webKeyOf("b", jwstest.P256()), webKeyOf("c", jwstest.RSA())))
	f.Add(jwstest.PEM(jwstest.Ed25519()))
	f.Add([]byte(`{"kty":"oct","k":"AAAA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := Parse(data)
		if err != nil {
			testenv.CheckText(t, err)
		} else if len(keys) == 0 {
			t.Error("neither keys nor an error")
		}
		for _, k := range keys {
			switch p := k.Public.(type) {
			case ed25519.PublicKey:
				if k.Algorithm != jose.EdDSA || len(p) != ed25519.PublicKeySize {
					t.Errorf("%s %x", k.Algorithm, p)
				}
			case *ecdsa.PublicKey:
				if k.Algorithm != jose.ES256 || p.Curve != elliptic.P256() {
					t.Errorf("%s %v", k.Algorithm, p)
				}
			case *rsa.PublicKey:
				if k.Algorithm != jose.RS256 || p.N.BitLen() < 2048 {
					t.Errorf("%s %v", k.Algorithm, p)
				}
			default:
				t.Errorf("a key of type %T", p)
			}
		}
	})
}

// weakKey protects nothing.
const weakKey = `-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDF6rtFoDo/yupED07pwnLWwDxbLMMKTvMg3BBHydlnU+Jsn4Tq
TWT8zgPrVsC96ql55wL+1tQKrf/6mW+H3myRWMTb6t6J0T+zG6AnpLX46L8CQ+7B
d+KMfZ/I3MzFEJ04J2tEER7Mroi7tkXNUOBOIRTWtWrpoaPITGfY6hke9wIDAQAB
AoGAf07aX5MNZPN1dYoTTLJThGfrawqD+yGFquFjZ4ojWh/PSefia4SVLTintL39
BSzpDwzWFG7DvormWaBQ6ajdVA+K2eUsvAt2icg7we/vWrR4Q9dPJJD1PRRhO2aY
+alPOSEPja8PHVpG6EiUENUl7ewJ2009ZH7XuEkkieoCg4ECQQDmGkz7AiFoqRni
BZWDsjp+D8+IOULfyQaR/5fTQO6lIor+pLxyXputkFwhQSLX5Az4osgOKFrsDa83
A07L/b7nAkEA3DEYkW1LbbKrymQ4IjioQ8CpTIMdxUs1p215TaGA2qDShEZIR0At
QStFbJJxPHwT9xzGyFb5tWQECuTlwETtcQJAUop6tMvl2hpWy4o/QPetHc1kH7SS
tZ3x+mtaNhCjyp7ih0fmxYwEgjU3p0IrUpBeys3xv4pgWy7pfG12VZyXXwJBAMMh
hyIpdzTJp8/+LHi3OPaB4AZ8E3/p/KxZKayQOT6GUskB97+csf4UuLtUs6DkXFUb
XVXhLf1/ms2Et85BxyECQQDQwOxjTb6Q1j9OaDIKhtTrfKhDPoWJ1AIsLfr8a5of
HtUqrrR9E+cz5WpuNHad85nJJo1J80tArxTK2fhAfJLl
-----END RSA PRIVATE KEY-----`
