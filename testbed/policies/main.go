// Which pairs NetworkPolicies let through, by the evaluator of another project (cyclonus): it knows
// nothing of who wrote the policies, and no packet is sent. Reads one question as JSON from standard
// input and prints the matrix: every pair of peers, at every port of the one that is called, for each
// family of addresses that both have.
package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// Port is one that a peer is called at.
type Port struct {
	Number   int           `json:"number"`
	Protocol core.Protocol `json:"protocol"`
}

// Peer is a pod, or with no namespace an address outside of the cluster's pods.
type Peer struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	NamespaceLabels map[string]string `json:"namespaceLabels"`
	Labels          map[string]string `json:"labels"`
	Addresses       []string          `json:"addresses"`
	Ports           []Port            `json:"ports"`
}

// Question is what is read.
type Question struct {
	Policies []json.RawMessage `json:"policies"`
	Peers    []Peer            `json:"peers"`
}

// Pair is what is printed of one.
type Pair struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Address string `json:"address"`
	Port
	Allowed bool `json:"allowed"`
}

func main() {
	if err := answer(); err != nil {
		fmt.Fprintln(os.Stderr, "policies:", err)
		os.Exit(1)
	}
}

func answer() error {
	var question Question
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&question); err != nil {
		return fmt.Errorf("failed to read the question: %w", err)
	}
	policies := make([]*networking.NetworkPolicy, 0, len(question.Policies))
	for _, text := range question.Policies {
		policy := &networking.NetworkPolicy{}
		// A field that the type doesn't have would else be passed over, and with it what it forbids.
		if err := yaml.UnmarshalStrict(text, policy); err != nil {
			return fmt.Errorf("failed to read a policy: %w", err)
		}
		policies = append(policies, policy)
	}
	pairs, err := matrix(matcher.BuildNetworkPolicies(false, policies), question.Peers)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(pairs)
}

func matrix(policy *matcher.Policy, peers []Peer) ([]Pair, error) {
	pairs := []Pair{}
	for _, from := range peers {
		for _, to := range peers {
			if from.Name == to.Name {
				continue
			}
			for _, address := range to.Addresses {
				source, err := sameFamily(from.Addresses, address)
				if err != nil {
					return nil, err
				}
				if source == "" {
					continue
				}
				for _, port := range to.Ports {
					traffic := &matcher.Traffic{
						Source:       from.at(source),
						Destination:  to.at(address),
						ResolvedPort: port.Number,
						Protocol:     port.Protocol,
					}
					pairs = append(pairs, Pair{from.Name, to.Name, address, port, policy.IsTrafficAllowed(traffic).IsAllowed()})
				}
			}
		}
	}
	return pairs, nil
}

func (p Peer) at(address string) *matcher.TrafficPeer {
	peer := &matcher.TrafficPeer{IP: address}
	if p.Namespace != "" {
		peer.Internal = &matcher.InternalPeer{
			PodLabels:       p.Labels,
			NamespaceLabels: p.NamespaceLabels,
			Namespace:       p.Namespace,
		}
	}
	return peer
}

// sameFamily gives the first of the addresses that can call the other, or nothing.
func sameFamily(addresses []string, other string) (string, error) {
	to, err := netip.ParseAddr(other)
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		from, err := netip.ParseAddr(address)
		if err != nil {
			return "", err
		}
		if from.Is4() == to.Is4() {
			return address, nil
		}
	}
	return "", nil
}
