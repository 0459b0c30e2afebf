using System.Text;

namespace Vmm.Spec;

/// <summary>The rules of disks of Ceph clusters.</summary>
internal static class RbdValidation
{
    private const int MostName = 96, MostPath = 4095; // of images in Ceph (RBD_MAX_IMAGE_NAME_SIZE), and of the kernel

    internal static void Check(DiskSpec disk, string path, SpecComplaints check)
    {
        if (disk.Rbd is not { } rbd)
        {
            check.Require(disk.Source.Kind != SourceKind.Rbd, path + ".rbd", "is missing");
            return;
        }

        string at = path + ".rbd";
        check.Require(disk.Nbd is null, at, "and nbd are both given");
        check.Require(string.Equals(disk.Path, rbd.Uri, StringComparison.Ordinal), path + ".path", "is of files, and rbd is given");
        check.Require(disk.Format == DiskFormat.Raw && disk.Backing is null, path + ".format",
            "an image file inside an RBD image is not read: the RBD image is the disk (rbd import, rbd clone)");
        CheckName(rbd.Pool, at + ".pool", check);
        CheckName(rbd.Image, at + ".image", check);
        check.Require(!rbd.Image.Contains('@', StringComparison.Ordinal), at + ".image",
            "is a snapshot: clone it (rbd clone POOL/IMAGE@SNAPSHOT POOL/NEW) and name the clone");
        if (rbd.Namespace.Length > 0)
        {
            CheckName(rbd.Namespace, at + ".namespace", check);
        }

        check.Require(rbd.User.Length is > 0 and <= MostName && rbd.User.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_'),
            at + ".user", "expected the name of a Ceph user, without client. before it");
        check.Require(!rbd.User.StartsWith("client.", StringComparison.Ordinal), at + ".user", "is said without client. before it");
        CheckFile(rbd.Conf, at + ".conf", check);
        CheckFile(rbd.KeyringFile, at + ".keyring", check);
    }

    private static void CheckName(string name, string at, SpecComplaints check) =>
        check.Require(name.Length > 0 && Encoding.UTF8.GetByteCount(name) <= MostName && !name.Any(c => char.IsControl(c) || c == '/'), at,
            $"expected a name of at most {MostName} bytes, without a slash");

    private static void CheckFile(string file, string at, SpecComplaints check) =>
        check.Require(
            file.StartsWith('/') && file.Length <= MostPath && !file.Any(char.IsControl), at, "expected the whole path of a file");
}
