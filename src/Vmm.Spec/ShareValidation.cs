using System.Text;

namespace Vmm.Spec;

/// <summary>The rules of shared folders.</summary>
internal static class ShareValidation
{
    /// <summary>Most shared folders.</summary>
    internal const int Most = 8;

    internal static void Check(VmSpec spec, SpecComplaints check)
    {
        for (int i = 0; i < spec.Shares.Count; i++)
        {
            Check(spec, i, check);
        }

        // A guest may read a file straight into persistent memory, which is no memory that virtiofsd maps.
        check.Require(spec.Shares.Count == 0 || !spec.Devices.OfType<Devices.PmemSpec>().Any(), "shares",
            "stand beside a pmem device: virtiofsd does not reach persistent memory. Take a disk in place of one of the two");
    }

    private static void Check(VmSpec spec, int index, SpecComplaints check)
    {
        ShareSpec share = spec.Shares[index];
        string path = $"shares[{index}]", tag = share.EffectiveTag;
        check.Require(share.Path.Length > 0 && !share.Path.Contains('\0', StringComparison.Ordinal), path + ".path",
            "expected the path of a folder");
        check.Require(IsTag(tag), path + ".tag", share.Tag is null
            ? $"\"{tag}\", the folder's name, is no tag that a guest can mount (1 to {ShareSpec.LongestTag} bytes without control "
                + "characters): give a tag"
            : $"\"{tag}\", expected 1 to {ShareSpec.LongestTag} bytes without control characters");
        for (int i = 0; i < index; i++)
        {
            check.Require(!string.Equals(tag, spec.Shares[i].EffectiveTag, StringComparison.Ordinal), path + ".tag",
                $"{tag} is the tag of shares[{i}] too: a guest could not tell them apart");
        }
    }

    private static bool IsTag(string tag)
    {
        // The tag ends where the first zero is; a lone half of a surrogate pair has no bytes.
        foreach (char c in tag)
        {
            if (char.IsControl(c) || char.IsSurrogate(c))
            {
                return false;
            }
        }

        return tag.Length is > 0 and <= ShareSpec.LongestTag && Encoding.UTF8.GetByteCount(tag) <= ShareSpec.LongestTag;
    }
}
