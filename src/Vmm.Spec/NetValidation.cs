namespace Vmm.Spec;

/// <summary>The rules of network devices and of rate limits.</summary>
internal static class NetValidation
{
    internal static void CheckNets(VmSpec spec, SpecComplaints check)
    {
        for (int i = 0; i < spec.Nets.Count; i++)
        {
            CheckNet(spec, i, check);
        }
    }

    internal static void CheckLimits(LimitsSpec limits, string path, SpecComplaints check)
    {
        check.Require(
            limits.Bandwidth is not null || limits.Operations is not null, path, "limits nothing: give bandwidth, operations or both");
        check.Require(limits.Bandwidth is not { } bandwidth || bandwidth.Bytes is >= 1024 and <= LimitsSpec.MostBytes, path + ".bandwidth",
            $"{limits.Bandwidth?.ToString() ?? ""}, expected 1KiB to 1048576TiB a second");
        check.Require(limits.Burst is not { } burst || burst.Bytes is >= 1024 and <= LimitsSpec.MostBytes, path + ".burst",
            $"{limits.Burst?.ToString() ?? ""}, expected 1KiB to 1048576TiB");
        check.Require(limits.Burst is null || limits.Bandwidth is not null, path + ".burst", "belongs to a bandwidth, and there is none");
        check.Require(limits.OperationsBurst is null || limits.Operations is not null, path + ".operationsBurst",
            "belongs to operations, and there are none");
    }

    private static void CheckNet(VmSpec spec, int index, SpecComplaints check)
    {
        NetSpec net = spec.Nets[index];
        string path = $"nets[{index}]";
        check.Require(IsInterface(net.Tap), path + ".tap",
            $"\"{net.Tap}\", expected the name of a network interface: 1 to 15 characters without '/', ':' and spaces");
        Span<byte> mac = stackalloc byte[6];
        bool isMac = net.Mac is null || MacAddress.TryParse(net.Mac, mac);
        check.Require(isMac, path + ".mac", $"\"{net.Mac ?? ""}\", expected six pairs of hexadecimal digits such as 52:54:00:12:34:56");
        check.Require(!isMac || net.Mac is null || ((mac[0] & 1) == 0 && mac.IndexOfAnyExcept((byte)0) >= 0), path + ".mac",
            $"{net.Mac ?? ""} is not the address of one device: the first byte must be even, and not all may be zero");
        NumaValidation.CheckNearness(spec, net.Vnode, path, check);
        if (net.Limits is { } limits)
        {
            CheckLimits(limits, path + ".limits", check);
        }

        check.Require(net.Limits is null || net.Vhost != VhostUse.On, path + ".vhost",
            "on, but the kernel's path knows no limits: leave one of the two out");
        for (int i = 0; i < index; i++)
        {
            NetSpec other = spec.Nets[i];
            check.Require(net.Tap.Length == 0 || !string.Equals(net.Tap, other.Tap, StringComparison.Ordinal), path + ".tap",
                $"{net.Tap} is nets[{i}] too: a tap belongs to one device");
            check.Require(net.Mac is null || !string.Equals(net.Mac, other.Mac, StringComparison.OrdinalIgnoreCase), path + ".mac",
                $"{net.Mac ?? ""} is the address of nets[{i}] too");
        }
    }

    private static bool IsInterface(string name)
    {
        // The kernel's rule, dev_valid_name(); names here are ASCII, so that characters are bytes.
        if (name.Length is < 1 or > 15 || name is "." or "..")
        {
            return false;
        }

        foreach (char c in name)
        {
            if (c is <= ' ' or > '~' or '/' or ':')
            {
                return false;
            }
        }

        return true;
    }
}
