using System.Globalization;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>What a VM is to be that is made of a point.</summary>
/// <param name="Replica">The name of the VM at the primary.</param>
/// <param name="Id">The id of the VM at the primary.</param>
/// <param name="Name">Its name here.</param>
/// <param name="IsTest">It is a test beside the VM, and must not meet it.</param>
/// <param name="Wish">What the operator asked for.</param>
/// <param name="Disks">The file of each disk of the point.</param>
internal sealed record RecoveryAim(
    string Replica, string Id, string Name, bool IsTest, FailoverWish Wish, IReadOnlyDictionary<string, string> Disks);

/// <summary>
/// The spec of a VM that is made of a point: the primary's, with disks and networks of this host. A test gets nothing through which it
/// could reach what the VM at the primary reaches: its networks are cut off or another one, and what is not replicated and can be written
/// is left out. Pure, but for the look whether files are there.
/// </summary>
internal sealed class RecoverySpec
{
    private readonly RecoveryAim _aim;
    private readonly List<string> _leftOut = [];

    private RecoverySpec(RecoveryAim aim, string text, VmSpec spec) => (_aim, Text, Spec) = (aim, text, spec);

    /// <summary>The text.</summary>
    internal string Text { get; private set; }

    /// <summary>The same.</summary>
    internal VmSpec Spec { get; private set; }

    /// <summary>What of the primary's VM a test does not have.</summary>
    internal IReadOnlyList<string> LeftOut => _leftOut;

    /// <summary>Makes it.</summary>
    /// <param name="text">The primary's spec.</param>
    /// <param name="aim">What the VM is to be.</param>
    /// <param name="storage">Where files may be.</param>
    /// <exception cref="ApiException">It cannot run here; what is in the way is named.</exception>
    internal static RecoverySpec Make(string text, RecoveryAim aim, StorageFolders storage)
    {
        try
        {
            RecoverySpec made = new(aim, text, SpecFileCheck.Read(text, "", CancellationToken.None));
            made.SetDisks();
            made.SetIdentity();
            made.SetNets();
            if (aim.IsTest)
            {
                made.CutOff();
            }

            VmSpec others = made.Spec with
            {
                Disks = [.. made.Spec.Disks.Select(disk => aim.Disks.Values.Contains(disk.Path, StringComparer.Ordinal)
                    ? disk with { Source = disk.Source with { Path = "" } } : disk)],
            };
            SpecFileCheck.Require(storage, others);
            return made;
        }
        catch (ApiException cause) when (cause.Problem.Code is "spec-invalid")
        {
            throw CannotRun(aim, cause.Problem.Detail, cause);
        }
        catch (SpecException cause)
        {
            throw CannotRun(aim, cause.Message, cause);
        }
    }

    private void SetDisks()
    {
        string[] named = [.. Spec.Disks.Select((_, i) => NameOf(i))];
        if (_aim.Disks.Keys.FirstOrDefault(disk => !named.Contains(disk, StringComparer.Ordinal)) is { } missing)
        {
            throw CannotRun(_aim, $"its spec has no {missing}, which the point has");
        }

        for (int i = Spec.Disks.Count - 1; i >= 0; i--)
        {
            int at = i;
            DiskSpec disk = Spec.Disks[i];
            if (_aim.Disks.TryGetValue(NameOf(i), out string? file))
            {
                DiskSpec here = disk with
                {
                    Source = new SourceSpec { Path = file, Format = DiskFormat.Qcow2, Cache = disk.Source.Cache },
                };
                Edit((text, folder) => SpecEdit.ReplaceDisk(text, folder, at, here),
                    spec => spec with { Disks = [.. spec.Disks.Select((old, j) => j == at ? here : old)] });
            }
            else if (_aim.IsTest && !disk.ReadOnly)
            {
                _leftOut.Add($"{NameOf(i)} ({disk.Path}), which is not replicated");
                Edit((text, folder) => SpecEdit.RemoveDisk(text, folder, at),
                    spec => spec with { Disks = [.. spec.Disks.Where((_, j) => j != at)] });
            }
        }
    }

    // A guest that has its generation id changed knows that it has gone back in time, or is another one.
    private void SetIdentity()
    {
        if (!string.Equals(Spec.Name, _aim.Name, StringComparison.Ordinal))
        {
            Edit((text, folder) => SpecEdit.Rename(text, folder, _aim.Name), spec => spec with { Name = _aim.Name });
        }

        if (Spec.GenerationId is not (null or "auto"))
        {
            string id = Guid.NewGuid().ToString();
            Edit((text, folder) => SpecEdit.SetGenerationId(text, folder, id), spec => spec with { GenerationId = id });
        }

        if (_aim.IsTest && Spec.Smbios?.Uuid is null)
        {
            SmbiosSpec smbios = Spec.WithUuid(_aim.Id).Smbios!; // what is licensed to the machine is so in a test, too
            Edit((text, folder) => SpecEdit.SetSmbios(text, folder, smbios), spec => spec with { Smbios = smbios });
        }
    }

    private void SetNets()
    {
        if (_aim.IsTest && _aim.Wish.Network is null)
        {
            if (Spec.Nets.Count > 0)
            {
                _leftOut.Add($"{Spec.Nets.Count} network devices");
                Edit((text, folder) => SpecEdit.RemoveField(text, folder, "nets", WithoutNets), WithoutNets);
            }

            return;
        }

        Dictionary<string, string> map = Mapping(_aim.Wish.Networks ?? []);
        HashSet<string> used = new(StringComparer.Ordinal);
        for (int i = 0; i < Spec.Nets.Count; i++)
        {
            int at = i;
            NetSpec net = Spec.Nets[i];
            string mac = MacAddress.Of(net, _aim.Replica, i); // that of its place depends on the VM's name
            NetSpec here = _aim.Wish.Network is { } network ? On(network, net) : Mapped(net, map, used);
            here = here with { Mac = here.User is null ? mac : here.Mac };
            if (here != net)
            {
                Edit((text, folder) => SpecEdit.ReplaceNet(text, folder, at, here),
                    spec => spec with { Nets = [.. spec.Nets.Select((old, j) => j == at ? here : old)] });
            }
        }

        if (map.Keys.FirstOrDefault(from => !used.Contains(from)) is { } odd)
        {
            throw Invalid($"networks: {odd}: no network device of {_aim.Replica} is on that");
        }
    }

    private void CutOff()
    {
        if (Spec.Vsock is not null)
        {
            static VmSpec Without(VmSpec spec) => spec with { Vsock = null };
            Edit((text, folder) => SpecEdit.RemoveField(text, folder, "vsock", Without), Without);
            _leftOut.Add("its vsock");
        }

        if (Spec.Shares.Count > 0)
        {
            static VmSpec Without(VmSpec spec) => spec with { Shares = [] };
            _leftOut.Add($"{Spec.Shares.Count} shared folders");
            Edit((text, folder) => SpecEdit.RemoveField(text, folder, "shares", Without), Without);
        }

        if (Spec.Autostart)
        {
            static VmSpec Without(VmSpec spec) => spec with { Autostart = false };
            Edit((text, folder) => SpecEdit.RemoveField(text, folder, "autostart", Without), Without);
        }

        for (int i = Spec.Devices.Count - 1; i >= 0; i--)
        {
            if (Spec.Devices[i].BackEnd is { } socket)
            {
                int at = i;
                VmSpec Without(VmSpec spec) => spec with { Devices = [.. spec.Devices.Where((_, j) => j != at)] };
                _leftOut.Add($"the device behind {socket}");
                Edit((text, folder) => SpecEdit.RemoveItem(text, folder, "devices", at, Without), Without);
            }
        }
    }

    private void Edit(Func<string, string?, string?> edit, Func<VmSpec, VmSpec> change)
    {
        Text = edit(Text, null) ?? throw CannotRun(_aim, "its spec is written in a way that cannot be changed by a program: at the "
            + $"primary, write its fields and lists with a line each ('vmmctl vm edit {_aim.Replica}'), and take a new point");
        Spec = change(Spec);
    }

    private Dictionary<string, string> Mapping(IReadOnlyList<string> texts)
    {
        Dictionary<string, string> map = new(StringComparer.Ordinal);
        foreach (string text in texts)
        {
            string[] parts = text.Split('=');
            if (parts.Length != 2 || parts[0].Length == 0 || parts[1].Length is 0 or > 64 || !map.TryAdd(parts[0], parts[1]))
            {
                throw Invalid($"networks: {text}: expected FROM=TO, each FROM once");
            }
        }

        return map;
    }

    private static NetSpec Mapped(NetSpec net, Dictionary<string, string> map, HashSet<string> used)
    {
        string from = net.Network ?? net.Bridge ?? net.Macvtap ?? net.Tap;
        if (from.Length == 0 || !map.TryGetValue(from, out string? to))
        {
            return net;
        }

        _ = used.Add(from);
        return net.Network is not null ? net with { Network = to }
            : net.Bridge is not null ? net with { Bridge = to }
            : net.Macvtap is not null ? net with { Macvtap = to }
            : net with { Tap = to };
    }

    private static NetSpec On(string network, NetSpec net) =>
        new() { Network = network, Mac = net.Mac, Queues = net.Queues, Transport = net.Transport, Limits = net.Limits, Vnode = net.Vnode };

    private static VmSpec WithoutNets(VmSpec spec) => spec with { Nets = [] };

    private static string NameOf(int index) => string.Create(CultureInfo.InvariantCulture, $"disk{index}");

    private static ApiException Invalid(string why) => new(422, "replica-invalid", "that cannot be done with the replica", why);

    private static ApiException CannotRun(RecoveryAim aim, string why, Exception? cause = null) => new(
        422, "replica-cannot-run", "the VM cannot run here", $"{aim.Replica}: {why}", inner: cause);
}
