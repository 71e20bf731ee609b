package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"
)

// secretPrefix is how secrets are told from other strings.
const secretPrefix = "whsec_"

// tolerance is how far the clocks of gateway and webhook may differ.
const tolerance = 5 * time.Minute

// A Secret is what gateway and webhook share. It is printed as [secret].
type Secret struct{ key []byte }

// ParseSecret reads a secret in the form of Standard Webhooks: whsec_ and the
// base64 of 24 to 64 random bytes. White space around it is cut off, as files end
// in a line break. Make one with
//
//	echo "whsec_$(openssl rand -base64 32)"
func ParseSecret(s string) (Secret, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(s), secretPrefix)
	if !ok {
		return Secret{}, errors.New("webhook secret does not begin with " + secretPrefix)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return Secret{}, errors.New("webhook secret is not base64 behind " + secretPrefix)
	}
	if len(key) < 24 || len(key) > 64 {
		return Secret{}, fmt.Errorf("webhook secret is %d bytes long, 24 to 64 are needed: make one of openssl rand -base64 32", len(key))
	}
	return Secret{key}, nil
}

// String returns [secret].
func (Secret) String() string { return "[secret]" }

// GoString returns [secret].
func (Secret) GoString() string { return "[secret]" }

// sign returns the value of the signature header.
func sign(secrets []Secret, id, timestamp string, body []byte) string {
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(s.mac(id, timestamp, body))
	}
	return strings.Join(signatures, " ")
}

// mac is over id, timestamp and body with dots between; neither of the first two
// has one.
func (s Secret) mac(id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return h.Sum(nil)
}

// Verify is for the other side: it checks that a request with these headers and
// this body, as it came in, was signed with the secret and within five minutes of
// now.
func Verify(secret Secret, header http.Header, body []byte, now time.Time) error {
	id, timestamp := header.Get(headerID), header.Get(headerTimestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || id == "" || len(secret.key) == 0 || strings.Contains(id, ".") {
		return errors.New("request is not signed")
	}
	if at := time.Unix(seconds, 0); at.Before(now.Add(-tolerance)) || at.After(now.Add(tolerance)) {
		return errors.New("request is of another time: it was sent again, or clocks differ")
	}
	want := secret.mac(id, timestamp, body)
	for signature := range strings.SplitSeq(header.Get(headerSignature), " ") {
		encoded, ok := strings.CutPrefix(signature, "v1,")
		got, err := base64.StdEncoding.DecodeString(encoded)
		if ok && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return errors.New("request is signed with another secret, or was changed")
}
