package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// questionVersion is what the package comment describes.
const questionVersion = 1

// A question is the body of a request: see the package comment.
type question struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      data      `json:"data"`
}

type data struct {
	Version     int              `json:"version"`
	RequestID   string           `json:"request_id"`
	Task        auth.TaskID      `json:"task"`
	Host        *bool            `json:"host,omitempty"`
	Method      string           `json:"method"`
	Name        string           `json:"name,omitempty"`
	Remote      string           `json:"remote_address,omitempty"`
	Key         *keyData         `json:"key,omitempty"`
	Certificate *certificateData `json:"certificate,omitempty"`
}

type keyData struct {
	Type          string `json:"type"`
	Fingerprint   string `json:"fingerprint"`
	AuthorizedKey string `json:"authorized_key"`
}

type certificateData struct {
	KeyID       string   `json:"key_id"`
	Serial      uint64   `json:"serial"`
	Principals  []string `json:"principals"`
	Authority   string   `json:"authority"`
	ValidAfter  uint64   `json:"valid_after"`
	ValidBefore *uint64  `json:"valid_before,omitempty"`
}

// question makes what to ask about an identity, and what a certificate permits at
// most; nil without one. Guests that need not be asked about are refused.
func (w *Webhook) question(ctx context.Context, id auth.Identity, task auth.Task) (*question, *ssh.Permissions, error) {
	now := w.config.Now().UTC().Truncate(time.Second)
	q := &question{Type: "guest.authorize", Timestamp: now, Data: data{
		Version: questionVersion, RequestID: w.newID(), Task: task.ID, Method: id.Method, Name: id.Name,
	}}
	if w.config.TellHost {
		host := task.Grant != nil
		q.Data.Host = &host
	}
	if addr := id.Remote.Addr(); addr.IsValid() {
		q.Data.Remote = addr.Unmap().WithZone("").String()
	}
	if id.Key == nil {
		return q, nil, nil
	}
	if err := auth.CheckKey(id.Key); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", auth.ErrDenied, err)
	}
	cert, ok := id.Key.(*ssh.Certificate)
	if !ok {
		q.Data.Key = describe(id.Key)
		return q, nil, nil
	}
	limit, err := w.checkCertificate(ctx, id, cert)
	if err != nil {
		return nil, nil, err
	}
	q.Data.Key, q.Data.Certificate = describe(cert.Key), describeCertificate(cert)
	return q, limit, nil
}

// checkCertificate holds a certificate to all that sshd would, but for principals:
// those are the webhook's to judge, so it is asked for one that it has.
func (w *Webhook) checkCertificate(ctx context.Context, id auth.Identity, cert *ssh.Certificate) (*ssh.Permissions, error) {
	if len(cert.ValidPrincipals) == 0 {
		return nil, fmt.Errorf("%w: certificate names no principals, and would be anybody's", auth.ErrDenied)
	}
	return w.authorities.Authorize(ctx, id, auth.Task{ID: auth.TaskID(cert.ValidPrincipals[0])})
}

func describe(key ssh.PublicKey) *keyData {
	return &keyData{
		Type:          key.Type(),
		Fingerprint:   ssh.FingerprintSHA256(key),
		AuthorizedKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
	}
}

func describeCertificate(cert *ssh.Certificate) *certificateData {
	d := &certificateData{
		KeyID: cert.KeyId, Serial: cert.Serial, Principals: cert.ValidPrincipals,
		Authority: ssh.FingerprintSHA256(cert.SignatureKey), ValidAfter: cert.ValidAfter,
	}
	if cert.ValidBefore != ssh.CertTimeInfinity {
		d.ValidBefore = &cert.ValidBefore
	}
	return d
}

// fallbackName is for a guest that the webhook does not name.
func (q *question) fallbackName() string {
	switch {
	case q.Data.Name != "":
		return q.Data.Name
	case q.Data.Key != nil:
		return q.Data.Key.Fingerprint
	}
	return q.Data.Method
}

// marshal writes the question in one line.
func (q *question) marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(q); err != nil {
		return nil, err
	}
	if b.Len() > maxBody {
		return nil, errors.New("certificate is too long to ask about")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// cacheKey stands for all questions that differ in time and request_id alone.
func (q *question) cacheKey() cacheKey {
	same := q.Data
	same.RequestID = ""
	text, err := json.Marshal(same)
	if err != nil { // there is nothing in it that could fail
		return cacheKey(sha256.Sum256([]byte(q.Data.RequestID)))
	}
	return cacheKey(sha256.Sum256(text))
}
