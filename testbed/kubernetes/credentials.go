// Who is who in one cluster: its certificate authorities, a certificate for each component and
// node, and the kubeconfigs that use them. Made once per cluster, readable by their owner only.
// It's here and not in xtask, because Go's standard library signs certificates and xtask would
// need a crypto library for it.
package main

import (
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// makeCredentials is the component `credentials`.
func makeCredentials() int {
	flags := flag.NewFlagSet("credentials", flag.ExitOnError)
	into := flags.String("into", "", "the folder to write to")
	server := flags.String("server", "", "the API server's URL, as the kubeconfigs name it")
	addresses := flags.String("addresses", "", "the API server's addresses, with commas")
	nodes := flags.String("nodes", "", "NAME=ADDRESS of each node, with commas")
	_ = flags.Parse(os.Args[1:])
	work := func() error {
		if err := serverSide(*into, strings.Split(*addresses, ",")); err != nil {
			return err
		}
		return clientSide(*into, *server, strings.Split(*nodes, ","))
	}
	if err := work(); err != nil {
		fmt.Fprintf(os.Stderr, "failed to make the credentials: %v\n", err)
		return 1
	}
	return 0
}

// serverSide writes what the API server and the controller manager are started with.
func serverSide(into string, addresses []string) error {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local"}
	for _, of := range []struct {
		authority string
		pairs     map[string]x509.Certificate
	}{
		{"ca", map[string]x509.Certificate{
			"apiserver":                serving("kube-apiserver", append(names, addresses...)),
			"apiserver-kubelet-client": client("kube-apiserver-kubelet-client", "system:masters"),
		}},
		// Its own authority: whoever it signs may change anything in the cluster, unasked.
		{"etcd-ca", map[string]x509.Certificate{
			"etcd":                  both("etcd", []string{"127.0.0.1"}),
			"apiserver-etcd-client": client("kube-apiserver-etcd-client", ""),
		}},
		// Its own authority: whoever it signs may claim to be anybody before an extension server.
		{"front-proxy-ca", map[string]x509.Certificate{
			"front-proxy-client": client("front-proxy-client", ""),
		}},
	} {
		signer, err := newAuthority(into, of.authority)
		if err != nil {
			return err
		}
		for name, template := range of.pairs {
			made, err := signer.sign(template)
			if err != nil {
				return err
			}
			if err := made.write(into, name); err != nil {
				return err
			}
		}
	}
	return serviceAccountKey(into)
}

// clientSide writes a kubeconfig for each component and person, and the nodes' serving pairs.
func clientSide(into, server string, nodes []string) error {
	signer, err := readAuthority(into, "ca")
	if err != nil {
		return err
	}
	clients := map[string]x509.Certificate{
		"admin":                   client("admin", "system:masters"),
		"kube-controller-manager": client("system:kube-controller-manager", ""),
		"kube-scheduler":          client("system:kube-scheduler", ""),
		"kube-proxy":              client("system:kube-proxy", ""),
	}
	for _, node := range nodes {
		name, address, _ := strings.Cut(node, "=")
		clients[name] = client("system:node:"+name, "system:nodes")
		made, err := signer.sign(serving("system:node:"+name, []string{name, address}))
		if err != nil {
			return err
		}
		if err := made.write(into, name); err != nil {
			return err
		}
	}
	for name, template := range clients {
		made, err := signer.sign(template)
		if err != nil {
			return err
		}
		if err := kubeconfig(filepath.Join(into, name+".kubeconfig"), server, signer.pem, made); err != nil {
			return err
		}
	}
	return nil
}

func kubeconfig(path, server string, authority []byte, user *pair) error {
	config := api.NewConfig()
	config.Clusters["testbed"] = &api.Cluster{Server: server, CertificateAuthorityData: authority}
	config.AuthInfos["testbed"] = &api.AuthInfo{
		ClientCertificateData: user.certificate,
		ClientKeyData:         user.key,
	}
	config.Contexts["testbed"] = &api.Context{Cluster: "testbed", AuthInfo: "testbed"}
	config.CurrentContext = "testbed"
	return clientcmd.WriteToFile(*config, path)
}
