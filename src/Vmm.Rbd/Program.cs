using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.NbdServing;
using Vmm.Storage.Rbd;

namespace Vmm.Rbd;

/// <summary>
/// vmm-rbd: one Ceph RBD disk in one process, which serves it to the process of a VM by the NBD protocol. Started by vmmd and vmmctl run;
/// not for people. Its descriptors: 3 the socket where it listens, 4 where it says that it has the image or why not, 5 the ceph.conf, 6 the
/// keyring.
/// </summary>
internal static class Program
{
    private const int Listener = 3, Status = 4, Conf = 5, Keyring = 6;

    internal static int Main(string[] arguments)
    {
        LossyWriter.UseForErrors();
        if (RbdArguments.Read(arguments) is not { } read)
        {
            Console.Error.WriteLine("vmm-rbd is started by vmmd and vmmctl; to use an RBD disk by hand: vmmctl run --disk rbd:POOL/IMAGE");
            return 2;
        }

        int code;
        try
        {
            code = Serve(read);
        }
#pragma warning disable CA1031 // The last line of defence: the reason goes to the log.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Console.Error.WriteLine($"vmm-rbd {Environment.ProcessId}: {cause.Message}");
            code = 1;
        }

        ProcessHandle.ExitNow(code); // threads of the library may still be there
        return code;
    }

    private static int Serve(RbdArguments arguments)
    {
        using UnixListener listener = new(new FileDescriptorHandle(Listener));
        using UnixStream status = UnixStream.FromDescriptor(new FileDescriptorHandle(Status));
        RbdConfinement.Close(arguments.Become);
        RbdBackend disk;
        try
        {
            disk = RbdBackend.Open(arguments.Disk with { Conf = $"/proc/self/fd/{Conf}", Keyring = $"/proc/self/fd/{Keyring}" });
        }
        catch (BlockException refused)
        {
            RbdHelper.Say(status, refused.Message);
            throw;
        }

        RbdHelper.Say(status, problem: null);
        status.Dispose();
        using (disk)
        {
            NbdDiskServer server = new(disk, listener, new NbdServerOptions());
            disk.Fenced = () =>
            {
                Console.Error.WriteLine($"disk {arguments.Disk.Name}: another client of the cluster has broken its lock");
                server.Abort();
            };
            NbdServerEnd end = server.Run();
            if (end == NbdServerEnd.Stuck)
            {
                Console.Error.WriteLine(
                    $"disk {arguments.Disk.Name}: nobody uses it any more, and the cluster does not answer: it is left");
                ProcessHandle.ExitNow(1); // closing waits for the cluster, too
            }

            using Timer impatience = new(_ => ProcessHandle.ExitNow(1), null, TimeSpan.FromMinutes(1), Timeout.InfiniteTimeSpan);
            server.Dispose();
        }

        return 0;
    }
}
