// Package registrytest is the conformance suite of registry.Registry.
package registrytest

import (
	"testing"

	"github.com/stagedoor/stagedoor/gateway/registry"
)

// Run tests the registries that make returns; each test asks for a fresh one.
func Run(t *testing.T, make func(t *testing.T) registry.Registry) {}
