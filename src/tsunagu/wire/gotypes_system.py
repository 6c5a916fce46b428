"""Docker's Go types of `info` and `version`, as tables for `gotypes.Registry`; see `gotypes_docker`.

May import nothing. Must never be imported but by `gotypes_docker`, when one of them is asked for.
"""

from __future__ import annotations

TABLES: dict[str, str] = {
    "system.dockerInfo": """
        +*system.Info
        ServerErrors []string ?
        UserName string ?
        ClientInfo *system.clientInfo ?
        ClientErrors []string ?
    """,
    "system.clientInfo": """
        Debug bool
        +system.clientVersion
        Plugins []any
        Warnings []string
    """,
    "system.Info": """
        ID string
        Containers int
        ContainersRunning int
        ContainersPaused int
        ContainersStopped int
        Images int
        Driver string
        DriverStatus [][2]string
        SystemStatus [][2]string ?
        Plugins system.PluginsInfo
        MemoryLimit bool
        SwapLimit bool
        KernelMemory bool ?
        KernelMemoryTCP bool ?
        CPUCfsPeriod=CpuCfsPeriod bool
        CPUCfsQuota=CpuCfsQuota bool
        CPUShares bool
        CPUSet bool
        PidsLimit bool
        IPv4Forwarding bool
        Debug bool
        NFd int
        OomKillDisable bool
        NGoroutines int
        SystemTime string
        LoggingDriver string
        CgroupDriver string
        CgroupVersion string ?
        NEventsListener int
        KernelVersion string
        OperatingSystem string
        OSVersion string
        OSType string
        Architecture string
        IndexServerAddress string
        RegistryConfig *registry.ServiceConfig
        NCPU int
        MemTotal int64
        GenericResources []any
        DockerRootDir string
        HTTPProxy=HttpProxy string
        HTTPSProxy=HttpsProxy string
        NoProxy string
        Name string
        Labels []string
        ExperimentalBuild bool
        ServerVersion string
        Runtimes map[string]system.RuntimeWithStatus
        DefaultRuntime string
        Swarm swarm.Info
        LiveRestoreEnabled bool
        Isolation string
        InitBinary string
        ContainerdCommit system.Commit
        RuncCommit system.Commit
        InitCommit system.Commit
        SecurityOptions []string
        ProductLicense string ?
        DefaultAddressPools []system.NetworkAddressPool ?
        FirewallBackend *system.FirewallInfo ?
        CDISpecDirs []string
        DiscoveredDevices []any ?
        Containerd *system.ContainerdInfo ?
        Warnings []string
    """,
    "system.PluginsInfo": """
        Volume []string
        Network []string
        Authorization []string
        Log []string
    """,
    "system.RuntimeWithStatus": """
        Path=path string ?
        Args=runtimeArgs []string ?
        Type=runtimeType string ?
        Options=options map[string]any ?
        Status=status map[string]string ?
    """,
    "system.Commit": """
        ID string
        Expected string ?
    """,
    "system.NetworkAddressPool": """
        Base string
        Size int
    """,
    "system.FirewallInfo": """
        Driver string
        Info [][2]string ?
    """,
    "system.ContainerdInfo": """
        Address string ?
        Namespaces system.ContainerdNamespaces
    """,
    "system.ContainerdNamespaces": """
        Containers string
        Plugins string
    """,
    "registry.ServiceConfig": """
        InsecureRegistryCIDRs []string
        IndexConfigs map[string]*registry.IndexInfo
        Mirrors []string
    """,
    "registry.IndexInfo": """
        Name string
        Mirrors []string
        Secure bool
        Official bool
    """,
    "swarm.Info": """
        NodeID string
        NodeAddr string
        LocalNodeState string
        ControlAvailable bool
        Error string
        RemoteManagers []any
        Nodes int ?
        Managers int ?
        Cluster *struct{} ?
        Warnings []string ?
    """,
    "system.versionInfo": """
        Client system.clientVersion
        Server *types.Version
    """,
    "system.clientVersion": """
        Platform *struct{Name} ?
        Version string ?
        APIVersion=ApiVersion string ?
        DefaultAPIVersion string ?
        GitCommit string ?
        GoVersion string ?
        Os string ?
        Arch string ?
        BuildTime string ?
        Context string
    """,
    "types.Version": """
        Platform struct{Name} ?
        Components []types.ComponentVersion ?
        Version string
        APIVersion=ApiVersion string
        MinAPIVersion string ?
        GitCommit string
        GoVersion string
        Os string
        Arch string
        KernelVersion string ?
        Experimental bool ?
        BuildTime string ?
    """,
    "types.ComponentVersion": """
        Name string
        Version string
        Details map[string]string ?
    """,
    "struct{Name}": """
        Name string
    """,
}
