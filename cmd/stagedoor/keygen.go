package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/auth"
)

const keygenHelp = `Keygen makes the key pair by which a CI system signs host tokens: FILE, which
stays with the CI system (stagedoor token --key FILE), and FILE.pub, which the
gateway names in hosts.token_keys. An existing FILE is kept, and FILE.pub is
written again.

EdDSA is what to use unless other programs are to sign or verify, which may know
ES256 or RS256 alone. To publish keys at a URL, in place of files at the gateway,
see stagedoor jwks.`

func newKeygenCommand() *cobra.Command {
	var algorithm string
	cmd := &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key pair for signing tokens",
		Long:  keygenHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			created, err := keygen(args[0], algorithm)
			if err != nil {
				return err
			}
			verb := "kept"
			if created {
				verb = "made"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s %s: it signs tokens, and stays with the CI system\nmade %s.pub: name it in the gateway's hosts.token_keys\n", verb, args[0], args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&algorithm, "algorithm", "", "what it signs by: "+strings.Join(auth.TokenKeyAlgorithms(), ", ")+" (default EdDSA, or that of an existing FILE)")
	return cmd
}

func keygen(file, algorithm string) (created bool, err error) {
	key, created, err := auth.LoadOrCreateTokenKey(file, algorithm)
	if err != nil {
		return false, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return created, fmt.Errorf("encode the public key: %w", err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return created, os.WriteFile(file+".pub", public, 0o644)
}
