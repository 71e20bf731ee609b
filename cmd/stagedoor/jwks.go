package main

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/auth/jwks"
)

const jwksHelp = `Jwks prints public keys as a JSON web key set (RFC 7517). At an https URL that
hosts.token_keys names, it lets a CI system change the keys that it signs tokens with
and nobody touch the gateway:

    stagedoor jwks ci.pub next.pub >keys.json

To change a key, publish the new one beside the old one, sign with it, and take the old
one away when its last token has expired. The gateway asks for a key that it does not
know at once, and looks every quarter of an hour for those that are gone.`

func newJWKSCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "jwks FILE...",
		Short: "Print public keys as a JSON web key set",
		Long:  jwksHelp,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printKeySet(cmd.OutOrStdout(), args)
		},
	}
}

func printKeySet(w io.Writer, files []string) error {
	var set jose.JSONWebKeySet
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("%s", keyFileError(file, err))
		}
		keys, err := jwks.Parse(data)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, key := range keys {
			member := jose.JSONWebKey{Key: key.Public, KeyID: key.ID, Algorithm: string(key.Algorithm), Use: "sig"}
			if member.KeyID == "" {
				print, err := member.Thumbprint(crypto.SHA256) // RFC 7638
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				member.KeyID = base64.RawURLEncoding.EncodeToString(print)
			}
			set.Keys = append(set.Keys, member)
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(set)
}
