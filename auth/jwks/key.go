package jwks

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate keys
)

// A Key is a public key and the one algorithm that it verifies.
type Key struct {
	ID        string                  // kid; empty: it has none, and may have signed any token
	Algorithm jose.SignatureAlgorithm // jose.EdDSA, jose.ES256 or jose.RS256
	Public    any                     // ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey
}

// Algorithms returns those there are.
func Algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.RS256}
}

// Limits of what is accepted. A signature by an RSA key of the largest size
// takes half a millisecond to verify.
const (
	minRSABits = 2048
	maxRSABits = 8192
	maxKeys    = 256
	maxKeyID   = 512 // bytes
)

// NewKey finds the algorithm of a public key, and refuses what is weak and what is
// of another kind.
func NewKey(id string, public any) (Key, error) {
	k := Key{ID: id, Public: public}
	switch p := public.(type) {
	case ed25519.PublicKey:
		k.Algorithm = jose.EdDSA
		if len(p) != ed25519.PublicKeySize {
			return Key{}, errors.New("Ed25519 key is of the wrong length")
		}
	case *ecdsa.PublicKey:
		k.Algorithm = jose.ES256
		if p.Curve != elliptic.P256() {
			return Key{}, fmt.Errorf("key is on the curve %s: use P-256, Ed25519 or RSA", p.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		k.Algorithm = jose.RS256
		if bits := p.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return Key{}, fmt.Errorf("RSA key has %d bits: use %d to %d", bits, minRSABits, maxRSABits)
		}
		if p.E < 3 || p.E%2 == 0 || p.E > 1<<31-1 || p.N.Bit(0) == 0 {
			return Key{}, errors.New("RSA key has numbers that no RSA key has")
		}
	default:
		return Key{}, fmt.Errorf("a key of type %T is not supported: use Ed25519, P-256 or RSA", public)
	}
	return k, nil
}

// A webKey is what is read of a JSON web key (RFC 7517, section 4). What a
// private key has is read to refuse it.
type webKey struct {
	Type       string   `json:"kty"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	ID         string   `json:"kid"`
	Curve      string   `json:"crv"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
	N          string   `json:"n"`
	E          string   `json:"e"`

	D strict.RawMessage `json:"d"`
	K strict.RawMessage `json:"k"`
	P strict.RawMessage `json:"p"`
	Q strict.RawMessage `json:"q"`
}

// errForeign is a key for something else than signatures of ours. A set may
// hold such keys (RFC 7517, section 5).
var errForeign = errors.New("key is not for EdDSA, ES256 or RS256 signatures")

// parseWebKey reads one member of a set.
func parseWebKey(data []byte) (Key, error) {
	var w webKey
	if err := strict.Unmarshal(data, &w); err != nil {
		return Key{}, oneLine(err)
	}
	switch {
	case w.D != nil || w.K != nil || w.P != nil || w.Q != nil:
		return Key{}, errors.New("it is a private key or a shared secret, which must not be published: replace it, and publish the public key alone")
	case w.foreign():
		return Key{}, errForeign
	case len(w.ID) > maxKeyID:
		return Key{}, fmt.Errorf("its kid is %d bytes long, %d are allowed", len(w.ID), maxKeyID)
	}
	public, err := w.public()
	if err != nil {
		return Key{}, err
	}
	k, err := NewKey(w.ID, public)
	if err == nil && w.Algorithm != "" && w.Algorithm != string(k.Algorithm) {
		return Key{}, fmt.Errorf("it says alg %q, but is for %s", w.Algorithm, k.Algorithm)
	}
	return k, err
}

// foreign says whether the key is meant for something else.
func (w *webKey) foreign() bool {
	switch {
	case w.Type == "OKP" && w.Curve != "Ed25519", w.Type == "EC" && w.Curve != "P-256":
		return true
	case w.Type != "OKP" && w.Type != "EC" && w.Type != "RSA":
		return true
	case w.Use != "" && w.Use != "sig", w.Operations != nil && !slices.Contains(w.Operations, "verify"):
		return true
	}
	return w.Algorithm != "" && !slices.Contains(Algorithms(), jose.SignatureAlgorithm(w.Algorithm))
}

// public has go-jose build the key, of the numbers alone: certificates beside
// them are not looked at.
func (w *webKey) public() (any, error) {
	data, err := json.Marshal(map[string]string{"kty": w.Type, "crv": w.Curve, "x": w.X, "y": w.Y, "n": w.N, "e": w.E})
	if err != nil {
		return nil, err
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(data); err != nil {
		return nil, oneLine(err)
	}
	return k.Key, nil
}
