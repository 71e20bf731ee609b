package issuer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	strict "github.com/go-jose/go-jose/v4/json" // case-sensitive, refuses duplicate names
)

// claims are the members of a token's payload, numbers as they are written.
type claims map[string]any

var errClaims = errors.New("its claims cannot be read: they are no JSON object, or a name stands in it twice")

// readClaims reads a payload. A name that stands twice is refused at any depth:
// we might believe the one, and others the other.
func readClaims(payload []byte) (claims, error) {
	if !utf8.Valid(payload) {
		return nil, errClaims
	}
	d := strict.NewDecoder(bytes.NewReader(payload))
	d.SetNumberType(strict.UnmarshalJSONNumber)
	var c claims
	if err := d.Decode(&c); err != nil || c == nil {
		return nil, errClaims
	}
	if err := d.Decode(&struct{}{}); err != io.EOF {
		return nil, errClaims
	}
	return c, nil
}

// wholeNumber has one way to write each number.
var wholeNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,19})$`)

// scalar returns a claim with one value as text.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case strict.Number:
		return string(v), wholeNumber.MatchString(string(v))
	}
	return "", false
}

// text returns a claim that must be there, have one value, and not be empty.
func (c claims) text(name string) (string, error) {
	v, present := c[name]
	if !present || v == nil {
		return "", fmt.Errorf("claim %s is missing", name)
	}
	s, ok := scalar(v)
	switch {
	case !ok:
		return "", fmt.Errorf("claim %s is neither text nor a whole number", name)
	case s == "":
		return "", fmt.Errorf("claim %s is empty", name)
	}
	return s, nil
}

// texts returns all claims with one value.
func (c claims) texts() map[string]string {
	m := make(map[string]string, len(c))
	for name, v := range c {
		if s, ok := scalar(v); ok {
			m[name] = s
		}
	}
	return m
}

// audiences returns the claim aud, which is one text or a list of them (RFC
// 7519, section 4.1.3).
func (c claims) audiences() ([]string, error) {
	switch v := c["aud"].(type) {
	case nil:
		return nil, errors.New("claim aud is missing")
	case string:
		return []string{v}, nil
	case []any:
		var list []string
		for _, a := range v {
			s, ok := a.(string)
			if !ok {
				return nil, errors.New("claim aud is no list of texts")
			}
			list = append(list, s)
		}
		return list, nil
	}
	return nil, errors.New("claim aud is neither text nor a list of texts")
}

// maxTime is the end of the year 9999, the last that prints as a date.
const maxTime = 253402300799

// time returns a time claim; a missing one is zero if it may be missing.
func (c claims) time(name string, required bool) (time.Time, error) {
	v, present := c[name]
	if !present || v == nil {
		if required {
			return time.Time{}, fmt.Errorf("claim %s is missing", name)
		}
		return time.Time{}, nil
	}
	n, ok := v.(strict.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("claim %s is no number", name)
	}
	seconds, err := strconv.ParseFloat(string(n), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxTime) {
		return time.Time{}, fmt.Errorf("claim %s is not a time in seconds since 1970", name)
	}
	return time.Unix(int64(seconds), 0).UTC(), nil
}
