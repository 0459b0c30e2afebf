namespace Vmm.Daemon;

/// <summary>What <c>vmmd --help</c> prints.</summary>
internal static class DaemonHelp
{
    internal const string Text = """
        vmmd: runs virtual machines and serves the REST interface that vmmctl uses.

          --state DIR     inventory [default: /var/lib/vmm]
          --run DIR       sockets, the daemon's and the workers' [default: /run/vmm]
          --socket PATH   REST socket [default: vmmd.sock in the run folder]
          --worker PATH   the worker program [default: vmm-worker beside vmmd]
          --pool N        workers kept ready, 0 to 64 [default: 1]
          --start-timeout N  seconds in which a VM has to be built and started, more for huge pages [default: 60]
          --balancer MODE on, off or dry-run: memory of running VMs by need [default: off]
          --balancer-interval N  seconds between two looks [default: 10]
          --memory-overcommit RATIO  how often the host's memory may be promised to VMs that run [default: no limit]
          --memory-pressure on|off  take memory from VMs with a resident limit when the host is short [default: on with an overcommit ratio]
          --memory-reserve SIZE  what stays available of the host's memory [default: 5 %, at least 256MiB]
          --disks DIR     where disks are made [default: disks in the state folder]
          --replicas DIR  where replicas of VMs of other hosts are kept [default: replicas in the state folder]
          --storage DIR   a folder beneath which disks, kernels and initrds may lie; may be repeated [default: images in the state folder]
          --block-devices DIR  a folder whose block devices may be disks, e.g. /dev/mapper; may be repeated [default: none]
          --nbd-servers HOST:PORT|SOCKET  an NBD server that disks may be on; may be repeated [default: none]
          --rbd-pools rbd:POOL[?user=NAME]  a pool of a Ceph cluster that disks may be in; may be repeated [default: none]
          --confinement require|best   whether a VM whose worker is only partly confined may start [default: best]
          --log-level LEVEL   debug, information, warning or error [default: information]
          --log-format text|json  lines for people, or an object a line [default: text]
          --log-file FILE  a file beside standard error, put aside at 16 MiB, 5 are kept [default: none]
          --config FILE   settings, named as the options here [default: /etc/vmm/vmmd.yaml when it is there]
          --operators GROUP, --viewers GROUP   groups of this host that may operate VMs, or look [default: vmm, none]
          --listen https://ADDRESS:PORT        for other machines, with
          --certificate FILE, --key FILE       the daemon's certificate and key (PEM), and
          --client-ca FILE                     authorities of client certificates (PEM); who they are is in the config's principals
          --connections N, --peer-connections N   most connections at once to each endpoint, and of one user or address [default: 512, 128]

        SIGHUP opens the log file anew and reads the settings again: log level, balancer (on, off, dry-run), memory pressure
        (on, off) and principals change at once, the rest with the next start.
        SIGTERM ends the daemon; the VMs go on, and the next daemon takes them over.
        """;
}
