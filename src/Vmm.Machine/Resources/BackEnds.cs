using Vmm.Devices.VhostUser;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage.Nbd;

namespace Vmm.Machine.Resources;

/// <summary>Connections to programs that serve devices over vhost-user, and that nobody here starts.</summary>
internal static class BackEnds
{
    /// <summary>Connects with this process's own rights, and again whenever the program is lost.</summary>
    /// <exception cref="VhostUserException">Nobody listens, or who does cannot what is needed.</exception>
    internal static VhostUserLink Connect(string id, DeviceSpec device, VhostUserNeeds needs, Action<string>? note)
    {
        NbdDialer dialer = NbdDialer.Unix(device.BackEnd!);
        try
        {
            return Open(id, device, needs, dialer.ConnectAsync(CancellationToken.None).GetAwaiter().GetResult(), dialer.ConnectAsync, note);
        }
        catch (IOException cause)
        {
            throw new VhostUserException($"{id}: {cause.Message}: start the program that serves it first", cause);
        }
    }

    /// <summary>Over a socket that somebody else connected.</summary>
    /// <param name="id">The device.</param>
    /// <param name="device">What its spec says.</param>
    /// <param name="needs">What the program must be able to do.</param>
    /// <param name="socket">The socket; owned from here on.</param>
    /// <param name="dial">Connects again, known by <see cref="ResourceNames.BackEndAgain"/>; null: nobody does.</param>
    /// <param name="note">Takes remarks; null when nobody reads them.</param>
    /// <exception cref="VhostUserException">The program does not answer as it should.</exception>
    internal static VhostUserLink Passed(
        string id, DeviceSpec device, VhostUserNeeds needs, FileDescriptorHandle socket,
        Func<string, CancellationToken, Task<FileDescriptorHandle>>? dial, Action<string>? note)
    {
        string name = ResourceNames.BackEndAgain(device.BackEnd!);
        return Open(id, device, needs, socket, dial is null ? null : cancel => dial(name, cancel), note);
    }

    private static VhostUserLink Open(
        string id, DeviceSpec device, VhostUserNeeds needs, FileDescriptorHandle socket,
        Func<CancellationToken, Task<FileDescriptorHandle>>? connect, Action<string>? note) =>
        new(socket, needs, new VhostUserLinkOptions { Name = id, Of = device.BackEnd!, Connect = connect, Note = note });
}
