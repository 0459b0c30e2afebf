using System.Globalization;
using Vmm.Storage.Rbd;

namespace Vmm.Rbd;

/// <summary>What the program was told.</summary>
/// <param name="Disk">The disk; its files are passed as descriptors.</param>
/// <param name="Become">The user to become; null is none.</param>
internal sealed record RbdArguments(RbdOptions Disk, uint? Become)
{
    /// <summary>Reads the words after the program's name; null when they are no such words.</summary>
    internal static RbdArguments? Read(string[] words)
    {
        if (words is not ["--serve", .. string[] rest])
        {
            return null;
        }

        RbdOptions disk = new() { Name = "", Pool = "", Image = "", User = "", Conf = "", Keyring = "" };
        uint? become = null;
        for (int i = 0; i < rest.Length; i++)
        {
            if (rest[i] is "--read-only" or "--write-back")
            {
                disk = rest[i] is "--read-only" ? disk with { ReadOnly = true } : disk with { WriteBack = true };
                continue;
            }

            string value = i + 1 < rest.Length ? rest[i + 1] : "";
            switch (rest[i++])
            {
                case "--name":
                    disk = disk with { Name = value };
                    break;
                case "--pool":
                    disk = disk with { Pool = value };
                    break;
                case "--namespace":
                    disk = disk with { Namespace = value };
                    break;
                case "--image":
                    disk = disk with { Image = value };
                    break;
                case "--user":
                    disk = disk with { User = value };
                    break;
                case "--become" when uint.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out uint user):
                    become = user;
                    break;
                default:
                    return null;
            }
        }

        return disk is { Pool.Length: > 0, Image.Length: > 0, User.Length: > 0 } ? new RbdArguments(disk, become) : null;
    }
}
