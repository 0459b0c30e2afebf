namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>
/// Tests of offline tools run one after the other: a process that another test starts holds our files, and their locks, until it has become
/// another program (open(2), O_CLOEXEC).
/// </summary>
[CollectionDefinition(Scratch.Alone, DisableParallelization = true)]
public sealed class AloneDefinition;

/// <summary>A folder of one test.</summary>
internal sealed class Scratch : IDisposable
{
    internal const string Alone = "offline tools of images";

    private readonly string _folder = Directory.CreateTempSubdirectory("qcow2-").FullName;

    internal string this[string name] => Path.Combine(_folder, name);

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
