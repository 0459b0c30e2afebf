using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.LifeCycle;

namespace Vmm.Daemon;

/// <summary>Every line the daemon logs.</summary>
internal static partial class DaemonLog
{
    [LoggerMessage(1, LogLevel.Information, "{Name} ended: {Reason} {Message}")]
    internal static partial void VmEnded(ILogger log, string name, ExitReason reason, string message);

    [LoggerMessage(40, LogLevel.Warning, "worker {ProcessId} of VM {Id} says: {Line}")]
    internal static partial void WorkerSaid(ILogger log, int processId, string id, string line);

    [LoggerMessage(2, LogLevel.Warning, "{Name}: worker {ProcessId} of a failed start could not be stopped: {Message}")]
    internal static partial void WorkerLeft(ILogger log, string name, int processId, string message);

    [LoggerMessage(46, LogLevel.Information, "{Name} is saved in {Folder}")]
    internal static partial void Saved(ILogger log, string name, string folder);

    [LoggerMessage(47, LogLevel.Error, "{Name}: its save was given up, and its worker did not say that the VM goes on: {Problem}")]
    internal static partial void SaveNotUndone(ILogger log, string name, string problem);

    [LoggerMessage(48, LogLevel.Warning, "{Name}: what a save that was given up has written in {Folder} could not be removed: {Problem}")]
    internal static partial void PartialStays(ILogger log, string name, string folder, string problem);

    [LoggerMessage(3, LogLevel.Information, "adopted {Name}, worker {ProcessId}")]
    internal static partial void Adopted(ILogger log, string name, int processId);

    [LoggerMessage(4, LogLevel.Warning, "{Name} should run, but its worker is gone")]
    internal static partial void Lost(ILogger log, string name);

    [LoggerMessage(5, LogLevel.Warning, "worker {ProcessId} holds a VM {Id} that the inventory does not know: it is stopped")]
    internal static partial void Stranger(ILogger log, int processId, string id);

    [LoggerMessage(6, LogLevel.Information, "{Who} {Method} {Path} -> {Status} ({Request})")]
    internal static partial void Change(ILogger log, string who, string method, string path, int status, string request);

    [LoggerMessage(7, LogLevel.Error, "{Method} {Path} failed ({Request})")]
    internal static partial void Fault(ILogger log, Exception error, string method, string path, string request);

    [LoggerMessage(9, LogLevel.Warning, "the stored spec of {Name} cannot be read: {Problem}")]
    internal static partial void SpecUnread(ILogger log, string name, string problem);

    [LoggerMessage(10, LogLevel.Error, "the end of {Name} could not be written to the inventory")]
    internal static partial void Unsaved(ILogger log, Exception error, string name);

    [LoggerMessage(143, LogLevel.Information, "at most {Limit} of the memory of {Name} is resident from now on")]
    internal static partial void ResidentLimit(ILogger log, string name, string limit);

    [LoggerMessage(144, LogLevel.Warning, "paging of {Name}: {What}")]
    internal static partial void PagingStopped(ILogger log, string name, string what);

    [LoggerMessage(145, LogLevel.Information, "lazy restore of {Name}: {What}")]
    internal static partial void MemoryRestored(ILogger log, string name, string what);

    [LoggerMessage(146, LogLevel.Warning, "whether {Name} is being restored still is not known: {Problem}")]
    internal static partial void RestoreNotKnown(ILogger log, string name, string problem);

    [LoggerMessage(11, LogLevel.Information, "memory of {Name} is {Outcome}: {Vnodes}")]
    internal static partial void MemoryChanged(ILogger log, string name, string outcome, string vnodes);

    [LoggerMessage(12, LogLevel.Information, "{Name} is started again in {Seconds} s")]
    internal static partial void Restart(ILogger log, string name, double seconds);

    [LoggerMessage(13, LogLevel.Warning, "{Name} could not be started again: {Problem}")]
    internal static partial void RestartFailed(ILogger log, string name, string problem);

    [LoggerMessage(60, LogLevel.Warning, "the kernel of the guest of {Name} panicked: {Follows}")]
    internal static partial void GuestPanicked(ILogger log, string name, string follows);

    [LoggerMessage(61, LogLevel.Warning, "{Disk} of {Name} ({Path}) fails: {Problem}")]
    internal static partial void DiskFails(ILogger log, string name, string disk, string path, string problem);

    [LoggerMessage(63, LogLevel.Warning, "{Disk} of {Name} ({Path}): {What}")]
    internal static partial void DiskWaits(ILogger log, string name, string disk, string path, string what);

    [LoggerMessage(59, LogLevel.Warning, "{Name}: {Disk} {What}")]
    internal static partial void DiskFileLost(ILogger log, string name, string disk, string what);

    [LoggerMessage(62, LogLevel.Information, "{Disk} of {Name} has {Bytes} bytes now")]
    internal static partial void DiskResized(ILogger log, string name, string disk, ulong bytes);

    [LoggerMessage(66, LogLevel.Information, "{Disk} of {Name} was copied from {Source} to {Target}, and goes on there")]
    internal static partial void DiskCopied(ILogger log, string name, string disk, string source, string target);

    [LoggerMessage(80, LogLevel.Information, "{Disk} of {Name} goes on in {Overlay}; {Source} stays as it was")]
    internal static partial void SnapshotTaken(ILogger log, string name, string disk, string source, string overlay);

    [LoggerMessage(190, LogLevel.Information, "{Name}: point {Number} of its backup is in {Folder}")]
    internal static partial void BackedUp(ILogger log, string name, int number, string folder);

    [LoggerMessage(191, LogLevel.Warning, "{Name}: {Message}")]
    internal static partial void BackupOverlayStays(ILogger log, string name, string message);

    [LoggerMessage(85, LogLevel.Information, "{Name}: its guest in the snapshot: {Quiesced}")]
    internal static partial void SnapshotQuiesced(ILogger log, string name, string quiesced);

    [LoggerMessage(81, LogLevel.Warning, "{Name}: the worker does not say whether it has taken the snapshot; it is asked again: {Problem}")]
    internal static partial void SnapshotNotKnown(ILogger log, string name, string problem);

    [LoggerMessage(90, LogLevel.Information, "{Disk} of {Name} was streamed, and stands {Now} now")]
    internal static partial void DiskStreamed(ILogger log, string name, string disk, string now);

    [LoggerMessage(91, LogLevel.Information, "{Disk} of {Name} was committed: what {Source} had is in {Into}, and it goes on there")]
    internal static partial void DiskCommitted(ILogger log, string name, string disk, string source, string into);

    [LoggerMessage(92, LogLevel.Warning, "{Name}: {File} was committed and is not needed any more, and stays: {Problem}")]
    internal static partial void CommittedStays(ILogger log, string name, string file, string problem);

    [LoggerMessage(
        67, LogLevel.Warning, "{Name}: {Disk}: the worker has not taken the last step of a {What}; it is asked again: {Problem}")]
    internal static partial void HandoverNotFinished(ILogger log, string name, string what, string disk, string problem);

    [LoggerMessage(68, LogLevel.Warning, "{Name}: the copy of a disk could not be ended in the worker: {Problem}")]
    internal static partial void CopyNotUndone(ILogger log, string name, string problem);

    [LoggerMessage(69, LogLevel.Warning, "{Name}: {Remark}")]
    internal static partial void DiskRemark(ILogger log, string name, string remark);

    [LoggerMessage(14, LogLevel.Information, "{Name} got {Device}: {Source}")]
    internal static partial void DeviceAdded(ILogger log, string name, string device, string source);

    [LoggerMessage(15, LogLevel.Information, "{Device} of {Name} is gone: {Outcome}")]
    internal static partial void DeviceRemoved(ILogger log, string name, string device, DeviceRemoval outcome);

    [LoggerMessage(16, LogLevel.Error, "{Device} of {Name} is gone, but its spec could not be changed")]
    internal static partial void DeviceStays(ILogger log, Exception error, string name, string device);

    [LoggerMessage(17, LogLevel.Warning, "what {Name} has plugged is not known: {Problem}")]
    internal static partial void DevicesUnknown(ILogger log, string name, string problem);

    [LoggerMessage(18, LogLevel.Information, "{Name}: {Outcome}")]
    internal static partial void Rehomed(ILogger log, string name, string outcome);

    [LoggerMessage(19, LogLevel.Information, "{Name}: {Outcome}")]
    internal static partial void Fitted(ILogger log, string name, string outcome);

    [LoggerMessage(20, LogLevel.Warning, "{Name} does not lie on this host as its spec says: {Outcome}")]
    internal static partial void FittedOtherwise(ILogger log, string name, string outcome);

    [LoggerMessage(21, LogLevel.Information, "balancer: {Name} vnode {Vnode} from {From} to {To} ({Outcome}): {Reason}")]
    internal static partial void Balanced(ILogger log, string name, int vnode, string from, string to, string reason, string outcome);

    [LoggerMessage(22, LogLevel.Information, "the balancer is {State}")]
    internal static partial void BalancerSet(ILogger log, string state);

    [LoggerMessage(23, LogLevel.Error, "a round of the balancer failed")]
    internal static partial void BalancerFault(ILogger log, Exception error);

    [LoggerMessage(24, LogLevel.Information, "the log level is {Level} (was {Before})")]
    internal static partial void LogLevelSet(ILogger log, string level, string before);

    [LoggerMessage(25, LogLevel.Warning, "SIGHUP: the settings were not read again, all stays as it is: {Problem}")]
    internal static partial void NotReread(ILogger log, string problem);

    [LoggerMessage(26, LogLevel.Information, "SIGHUP: log level, balancer and principals are as the settings say{Rest}")]
    internal static partial void Reread(ILogger log, string rest);

    [LoggerMessage(27, LogLevel.Debug, "{Who} {Method} {Path} -> {Status} in {Milliseconds} ms ({Request})")]
    internal static partial void Read(ILogger log, string who, string method, string path, int status, long milliseconds, string request);

    [LoggerMessage(30, LogLevel.Error, "job {Kind} of {Target} ({Id}) failed")]
    internal static partial void JobFault(ILogger log, Exception error, string kind, string target, string id);

    [LoggerMessage(31, LogLevel.Information, "{Name}: {Line}")]
    internal static partial void CrashReport(ILogger log, string name, string line);

    [LoggerMessage(32, LogLevel.Warning, "refused {What} of {Peer}: {Code}")]
    internal static partial void Refused(ILogger log, string peer, string what, string code);

    [LoggerMessage(33, LogLevel.Warning, "{Count} were refused in the last minute of refusals, most of {Peers}")]
    internal static partial void RefusedMany(ILogger log, int count, string peers);

    [LoggerMessage(
        40, LogLevel.Warning, "the connection to the worker of {Name} ({ProcessId}) is lost: the VM goes on, the connection is made again")]
    internal static partial void ConnectionLost(ILogger log, string name, int processId);

    [LoggerMessage(41, LogLevel.Information, "the worker of {Name} ({ProcessId}) is connected again")]
    internal static partial void Reconnected(ILogger log, string name, int processId);

    [LoggerMessage(42, LogLevel.Warning, "the worker of {Name} ({ProcessId}) does not answer yet")]
    internal static partial void Unanswering(ILogger log, string name, int processId);

    [LoggerMessage(43, LogLevel.Error, "{Name} could not be taken over as it is")]
    internal static partial void AdoptionFault(ILogger log, Exception error, string name);

    [LoggerMessage(44, LogLevel.Error, "{Name} could not be started")]
    internal static partial void StartFault(ILogger log, Exception error, string name);

    [LoggerMessage(45, LogLevel.Warning, "{Path} could not be written, so the next vmmd starts the VMs with autostart again: {Problem}")]
    internal static partial void MarkUnwritten(ILogger log, string path, string problem);

    [LoggerMessage(
        34, LogLevel.Warning, "SIGHUP: the log file {File} cannot be opened anew, lines go on into the one that is open: {Problem}")]
    internal static partial void LogNotReopened(ILogger log, string file, string problem);

    [LoggerMessage(130, LogLevel.Information, "{Name}: its agent has set the guest's clock after the restore")]
    internal static partial void GuestTimeSet(ILogger log, string name);

    [LoggerMessage(131, LogLevel.Warning, "{Name}: the guest's clock is behind since the restore: {Problem}")]
    internal static partial void GuestTimeNotSet(ILogger log, string name, string problem);

    [LoggerMessage(133, LogLevel.Information, "{Name}: the guest has not heeded the power button; its agent was asked to shut it down")]
    internal static partial void GuestShutDown(ILogger log, string name);

    [LoggerMessage(132, LogLevel.Warning, "{Name}: its agent cannot be asked to shut the guest down: {Problem}")]
    internal static partial void GuestNotShutDown(ILogger log, string name, string problem);

    [LoggerMessage(140, LogLevel.Information, "{Kind}: {What}")]
    internal static partial void NetworkTold(ILogger log, string kind, string what);

    [LoggerMessage(141, LogLevel.Warning, "a private network fails: {What}")]
    internal static partial void NetworkFails(ILogger log, string what);

    [LoggerMessage(142, LogLevel.Warning, "{Path} is not taken for a private network: {Problem}")]
    internal static partial void NetworkUnread(ILogger log, string path, string problem);

    [LoggerMessage(150, LogLevel.Information, "memory pressure: {Name} {Means} from {From} to {To} ({Outcome}): {Reason}")]
    internal static partial void Pressed(ILogger log, string name, string means, string from, string to, string outcome, string reason);

    [LoggerMessage(151, LogLevel.Error, "a round of the pressure loop failed")]
    internal static partial void PressureFault(ILogger log, Exception error);

    [LoggerMessage(152, LogLevel.Information, "the pressure loop is {State}")]
    internal static partial void PressureSet(ILogger log, string state);

    [LoggerMessage(160, LogLevel.Information, "{Name} went on in a new worker ({From} -> {To}); it stood still for {Downtime} ms")]
    internal static partial void Upgraded(ILogger log, string name, int from, int to, double downtime);

    [LoggerMessage(161, LogLevel.Warning, "{Name}: the worker was not told to give its move up: {Problem}")]
    internal static partial void MoveNotUndone(ILogger log, string name, string problem);

    [LoggerMessage(162, LogLevel.Warning, "{Name}: its new worker keeps the names of its move until the next vmmd: {Problem}")]
    internal static partial void NamesNotTaken(ILogger log, string name, string problem);

    [LoggerMessage(163, LogLevel.Information, "{Name} went on on another host ({Peer}); it stood still here for {Downtime} ms until then")]
    internal static partial void Migrated(ILogger log, string name, string peer, double downtime);

    [LoggerMessage(164, LogLevel.Warning, "{Name} stands still until {Peer} says whether it has it: {Problem}")]
    internal static partial void MigrationUnsettled(ILogger log, string name, string peer, string problem);

    [LoggerMessage(165, LogLevel.Information, "{Name}: {Peer} was not told that its move is given up, and finds out: {Problem}")]
    internal static partial void FarewellUnheard(ILogger log, string name, string peer, string problem);

    [LoggerMessage(166, LogLevel.Information, "{Name} came from another host ({Move})")]
    internal static partial void Arrived(ILogger log, string name, string move);

    [LoggerMessage(167, LogLevel.Warning, "{Name} did not come from another host ({Move}): {Problem}")]
    internal static partial void NotArrived(ILogger log, string name, string move, string problem);

    [LoggerMessage(168, LogLevel.Error, "{Name}: what became of the move {Move} could not be written, and is tried again: {Problem}")]
    internal static partial void Undecided(ILogger log, string name, string move, string problem);

    [LoggerMessage(169, LogLevel.Warning, "{Name}: {Peer} does not say whether it has it; somebody decided that it {Answer}")]
    internal static partial void MigrationDecided(ILogger log, string name, string peer, string answer);

    [LoggerMessage(980, LogLevel.Information, "{Name}: {Kind}: {What}")]
    internal static partial void ReplicationTold(ILogger log, string name, string kind, string what);

    [LoggerMessage(981, LogLevel.Error, "{Name}: an error of vmmd in its replication, which goes on")]
    internal static partial void ReplicaFault(ILogger log, Exception error, string name);

    [LoggerMessage(982, LogLevel.Warning, "{Name}: {Path} of its replication stays: {Problem}")]
    internal static partial void ReplicaFilesStay(ILogger log, string name, string path, string problem);

    [LoggerMessage(960, LogLevel.Information, "replica of {Name}: {What}")]
    internal static partial void ReplicaTold(ILogger log, string name, string what);

    [LoggerMessage(961, LogLevel.Debug, "replica of {Name}: point {Number} is here, of {Time}")]
    internal static partial void PointArrived(ILogger log, string name, int number, DateTimeOffset time);

    [LoggerMessage(962, LogLevel.Warning, "replica of {Name}: nothing becomes of point {Point}: {Problem}")]
    internal static partial void PointRefused(ILogger log, string name, string point, string problem);

    [LoggerMessage(171, LogLevel.Warning, "{Name}: change log of {Problem}")]
    internal static partial void ChangeLogFailed(ILogger log, string name, string problem);

    [LoggerMessage(170, LogLevel.Information, "{Name}: everything counts as written on {Disk}: {Reason}")]
    internal static partial void ChangesUnknown(ILogger log, string name, string disk, string reason);

    [LoggerMessage(8, LogLevel.Information, "vmmd {Version} listens on {Socket}")]
    internal static partial void Listening(ILogger log, string version, string socket);
}
