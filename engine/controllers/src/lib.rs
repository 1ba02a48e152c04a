//! Reconcilers over kube's client: Cluster, MachineDeployment, MachineSet, Machine.
