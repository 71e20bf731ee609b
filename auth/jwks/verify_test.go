package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/stagedoor/stagedoor/auth/internal/jws"
	"github.com/stagedoor/stagedoor/auth/internal/jws/jwstest"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func TestVerifyAlgorithms(t *testing.T) {
	keys := map[string]crypto.Signer{"ed": jwstest.Ed25519(), "ec": jwstest.P256(), "rsa": jwstest.RSA()}
	server := newKeyServer(t, webKeyOf("ed", keys["ed"]), webKeyOf("ec", keys["ec"]), webKeyOf("rsa", keys["rsa"]))
	set, _ := server.set(t)
	for id, key := range keys {
		wantGood(t, set, sign(t, id, key, "{}"))
		wantGood(t, set, sign(t, "", key, "{}"))
	}
	server.wantRequests(t, 1)

	only := []jose.SignatureAlgorithm{jose.ES256}
	if _, err := set.Verify(t.Context(), sign(t, "rsa", jwstest.RSA(), "{}"), only...); err == nil || !strings.Contains(err.Error(), "RS256") {
		t.Errorf("an algorithm that was not asked for: %v", err)
	}
}

// A token says how it is to be verified. It must not be believed.
func TestKeyConfusion(t *testing.T) {
	key, ec, ed := jwstest.RSA(), jwstest.P256(), jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("rsa", key), webKeyOf("ec", ec), webKeyOf("ed", ed))
	set, _ := server.set(t)

	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		wantBad(t, set, jwstest.Compact(`{"alg":"`+alg+`","kid":"rsa"}`, "{}", func([]byte) []byte { return nil }), "")
	}
	wantBad(t, set, jwstest.Compact(`{"kid":"rsa"}`, "{}", func([]byte) []byte { return nil }), "")

	// HS256 with what everybody knows for a secret.
	member, _ := json.Marshal(webKeyOf("rsa", key))
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := [][]byte{
		jwstest.PEM(key), jwstest.PEM(ec), jwstest.PEM(ed), must(x509.MarshalPKIXPublicKey(key.Public())), x509.MarshalPKCS1PublicKey(&key.PublicKey),
		key.N.Bytes(), point, []byte(ed.Public().(ed25519.PublicKey)), member, {},
	}
	for _, id := range []string{"rsa", "ec", "ed", ""} {
		for _, secret := range secrets {
			wantBad(t, set, jwstest.Compact(`{"alg":"HS256","typ":"JWT","kid":"`+id+`"}`, "{}", jwstest.HS256(secret)), "HS256")
			// Even if HS256 was asked for, no key is a secret.
			if _, err := set.Verify(t.Context(), jwstest.Compact(`{"alg":"HS256","kid":"`+id+`"}`, "{}", jwstest.HS256(secret)), jose.HS256); err == nil {
				t.Fatal("a public key was taken for a secret")
			}
		}
	}

	// The right key, and another algorithm of its kind.
	wantBad(t, set, jwstest.Compact(`{"alg":"RS512","kid":"rsa"}`, "{}", func(input []byte) []byte {
		sum := sha512.Sum512(input)
		return must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA512, sum[:]))
	}), "RS512")
	pss := func(input []byte) []byte {
		sum := sha256.Sum256(input)
		return must(rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], nil))
	}
	wantBad(t, set, jwstest.Compact(`{"alg":"PS256","kid":"rsa"}`, "{}", pss), "PS256")
	wantBad(t, set, jwstest.Compact(`{"alg":"RS256","kid":"rsa"}`, "{}", pss), "signature")
	// ASN.1 where JOSE has two numbers, and a pair of zeros (CVE-2022-21449).
	asn1 := func(input []byte) []byte {
		sum := sha256.Sum256(input)
		return must(ecdsa.SignASN1(rand.Reader, ec, sum[:]))
	}
	wantBad(t, set, jwstest.Compact(`{"alg":"ES256","kid":"ec"}`, "{}", asn1), "signature")
	wantBad(t, set, jwstest.Compact(`{"alg":"ES256","kid":"ec"}`, "{}", func([]byte) []byte { return make([]byte, 64) }), "signature")
	// The name of one key, the algorithm of another.
	wantBad(t, set, jwstest.Compact(`{"alg":"EdDSA","kid":"rsa"}`, "{}", jwstest.EdDSA(ed)), "is not among those")
	// A key that the token brings along.
	mallory := jwstest.Ed25519()
	brought, _ := json.Marshal(webKeyOf("ed", mallory))
	wantBad(t, set, jwstest.Compact(`{"alg":"EdDSA","kid":"ed","jwk":`+string(brought)+`}`, "{}", jwstest.EdDSA(mallory)), "")
	wantBad(t, set, jwstest.Compact(`{"alg":"EdDSA","kid":"ed","jku":"`+server.URL+`/mallory"}`, "{}", jwstest.EdDSA(mallory)), "signature")
}

func TestTokenForm(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, _ := server.set(t)
	signed := jwstest.EdDSA(key)
	good := jwstest.Compact(`{"alg":"EdDSA","kid":"1"}`, "{}", signed)
	wantGood(t, set, good)
	wantGood(t, set, jwstest.Compact(`{"alg":"EdDSA","kid":"1","typ":"jwt"}`, "{}", signed))
	parts := strings.Split(good, ".")

	for what, token := range map[string]string{
		"empty":              "",
		"two parts":          parts[0] + "." + parts[1],
		"four parts":         good + "." + parts[2],
		"JSON form":          `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"no signature":       parts[0] + "." + parts[1] + ".",
		"a line break":       parts[0] + "." + parts[1] + "\n." + parts[2],
		"a space behind":     good + " ",
		"padding":            parts[0] + "." + parts[1] + "=." + parts[2],
		"other last bits":    parts[0] + "." + parts[1] + "." + jwstest.StrayBits(parts[2]),
		"altered":            parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("[]")) + "." + parts[2],
		"other type":         jwstest.Compact(`{"alg":"EdDSA","kid":"1","typ":"at+jwt"}`, "{}", signed),
		"type no text":       jwstest.Compact(`{"alg":"EdDSA","kid":"1","typ":7}`, "{}", signed),
		"empty type":         jwstest.Compact(`{"alg":"EdDSA","kid":"1","typ":""}`, "{}", signed),
		"crit":               jwstest.Compact(`{"alg":"EdDSA","kid":"1","crit":["exp"],"exp":1}`, "{}", signed),
		"b64":                jwstest.Compact(`{"alg":"EdDSA","kid":"1","b64":false}`, "{}", signed),
		"kid no text":        jwstest.Compact(`{"alg":"EdDSA","kid":1}`, "{}", signed),
		"header no object":   jwstest.Compact(`[]`, "{}", signed),
		"header cut off":     jwstest.Compact(`{"alg":"EdDSA"`, "{}", signed),
		"alg twice":          jwstest.Compact(`{"alg":"none","alg":"EdDSA","kid":"1"}`, "{}", signed),
		"kid twice":          jwstest.Compact(`{"alg":"EdDSA","kid":"2","kid":"1"}`, "{}", signed),
		"terminal escapes":   jwstest.Compact("{\"alg\":\"\u001b[2J\",\"kid\":\"1\"}", "{}", signed),
		"escapes in the kid": jwstest.Compact(`{"alg":"EdDSA","kid":"\u001b[2J\n\u202e`+strings.Repeat("k", 3000)+`"}`, "{}", signed),
	} {
		if _, err := set.Verify(t.Context(), token); err == nil {
			t.Errorf("%s: accepted", what)
		} else {
			testenv.CheckText(t, err)
		}
	}
	server.wantRequests(t, 1)
}

func TestHugeToken(t *testing.T) {
	key := jwstest.Ed25519()
	server := newKeyServer(t, webKeyOf("1", key))
	set, _ := server.set(t)
	wantBad(t, set, sign(t, "1", key, strings.Repeat(" ", MaxToken)), "bytes long")
	wantBad(t, set, strings.Repeat("a", 10<<20), "bytes long")
	wantBad(t, set, strings.Repeat(".", MaxToken), "three parts")
	server.wantRequests(t, 0)
}

func FuzzVerify(f *testing.F) {
	key := jwstest.Ed25519()
	mallory := jwstest.Ed25519()
	good := jwstest.Compact(`{"alg":"EdDSA","kid":"1"}`, "{}", jwstest.EdDSA(key))
	f.Add(good)
	f.Add(jwstest.Compact(`{"alg":"none"}`, "{}", func([]byte) []byte { return nil }))
	f.Add(jwstest.Compact(`{"alg":"EdDSA","kid":"1","typ":"JWT"}`, "{}", jwstest.EdDSA(mallory)))
	f.Add("..")
	s := &snapshot{keys: []Key{must(NewKey("1", key.Public()))}}
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := jws.Parse(raw, MaxToken, Algorithms(), tokenTypes...)
		if err != nil {
			testenv.CheckText(t, err)
			return
		}
		if _, err := s.verify(token); err == nil && raw != good {
			t.Errorf("accepted %q", raw)
		} else if err != nil {
			testenv.CheckText(t, err)
		}
	})
}

func TestUnavailableIsTold(t *testing.T) {
	server := newKeyServer(t)
	server.fails(500)
	set, _ := server.set(t)
	if err := wantBad(t, set, sign(t, "1", jwstest.Ed25519(), "{}"), "status 500"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}
