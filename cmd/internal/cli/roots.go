package cli

import (
	"crypto/x509"
	"fmt"
	"os"
)

// LoadRoots reads the certificates to trust from a PEM file. Without a name it
// returns nil, which stands for the system's.
func LoadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("there is no certificate in %s: it takes PEM", file)
	}
	return pool, nil
}
