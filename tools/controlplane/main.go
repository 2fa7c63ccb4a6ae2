// Command controlplane is a real Kubernetes control plane in one binary, for tests, benchmarks and
// the demo: etcd, kube-apiserver, kube-controller-manager and kubectl, each as they are upstream.
// The first argument chooses the program, the others are its own:
//
//	controlplane etcd --data-dir=...
//	controlplane kube-apiserver --etcd-servers=...
//	controlplane kube-controller-manager --kubeconfig=...
//	controlplane kubectl get pods
//
// Built and started by `python -m warmpool.tools.controlplane`; built from source because Go
// modules are all it takes, where release archives and container images may be out of reach.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	// Registers the JSON log format and the client-go metrics, as the upstream main packages do.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

const usage = "usage: controlplane etcd|kube-apiserver|kube-controller-manager|kubectl [arguments]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	// Each program reads os.Args itself and must find its own name first.
	os.Args = os.Args[1:]
	switch os.Args[0] {
	case "etcd":
		// The whole etcd rather than its embed package: it takes the same flags as an etcd binary
		// from $KUBEBUILDER_ASSETS, so its caller need not know which of the two it starts.
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "kubectl":
		logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) // -v before the commands are built; as upstream
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			util.CheckErr(err) // prints as kubectl does and exits with its code
		}
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
}
