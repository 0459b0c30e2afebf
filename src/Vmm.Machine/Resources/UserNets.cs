using Vmm.Devices.Virtio.Net;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Machine.Resources;

/// <summary>User-mode networks from their spec.</summary>
internal static class UserNets
{
    /// <summary>Starts its program with this process's rights, and again whenever it ends.</summary>
    /// <exception cref="HostNetException">It cannot be started.</exception>
    internal static StreamNetBackend Start(int index, NetSpec net, Action<string>? note)
    {
        PasstProcess passt = new(net);
        return new StreamNetBackend(passt.Start(), new StreamNetOptions
        {
            Name = $"net{index}",
            Note = note,
            Connect = _ => Task.FromResult(Restart(passt)),
        });
    }

    /// <summary>Over a socket that somebody else made. When its program ends, the link stays down until the VM's next start.</summary>
    /// <param name="index">Number of the device.</param>
    /// <param name="socket">The socket; owned from here on.</param>
    /// <param name="note">Takes remarks; null when nobody reads them.</param>
    internal static StreamNetBackend Passed(int index, FileDescriptorHandle socket, Action<string>? note) =>
        new(socket, new StreamNetOptions { Name = $"net{index}", Note = note });

    private static FileDescriptorHandle Restart(PasstProcess passt)
    {
        try
        {
            return passt.Start();
        }
        catch (HostNetException cause)
        {
            throw new IOException(cause.Message, cause);
        }
    }
}
